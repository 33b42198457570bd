#include "backends/xen/execution.h"

#include <doctest/doctest.h>

#include <array>

#include "tests/unit/xen/fake_frames.h"

using namespace exo;
using namespace exo::xen;
using namespace std::chrono_literals;
using Cause = StopEvent::Cause;

namespace {

// A domain and what happened to it; it outlives the run control that has it.
struct Story {
    xc_dominfo_t info{};
    int pauses = 0;
    bool exists = true;
    std::optional<bool> holds;  // of the journal; nothing: there is none
    bool refuses = false;       // pauses
    bool written_before_pause = true;
};

class FakePausing final : public Pausing {
public:
    explicit FakePausing(Story& story) : story_(story) {}
    [[nodiscard]] std::string name() const override { return "guest"; }
    [[nodiscard]] std::string text() const override { return "Xen domain guest (7)"; }
    Result<xc_dominfo_t> info() override {
        if (!story_.exists) return fail(Errc::target_gone, "the domain is gone");
        auto info = story_.info;
        info.paused = story_.pauses > 0 ? 1 : 0;
        return info;
    }
    Result<void> pause() override {
        if (!story_.exists) return fail(Errc::target_gone, "the domain is gone");
        if (story_.refuses) return fail(Errc::backend, "no");
        if (story_.holds != true) story_.written_before_pause = false;
        ++story_.pauses;
        return {};
    }
    Result<void> unpause() override {
        if (!story_.exists) return fail(Errc::target_gone, "the domain is gone");
        if (story_.holds != true) story_.written_before_pause = false;
        story_.pauses = std::max(0, story_.pauses - 1);
        return {};
    }
    Result<void> begin() override { return {}; }
    Result<void> write_down(bool holds) override {
        story_.holds = holds;
        return {};
    }
    void end() override { story_.holds.reset(); }

private:
    Story& story_;
};

constexpr auto run_all = std::to_array({VcpuAction::run});

struct PausedGuest {
    Story story;
    test::FakeFrames frames;
    ForeignMemory memory{frames, nullptr, {}, {}};
    XenExecution execution{std::make_unique<FakePausing>(story), memory};
};

}  // namespace

TEST_CASE("xen run control: attach, go on, interrupt, detach") {
    PausedGuest guest;
    REQUIRE(guest.execution.attach());
    CHECK(guest.story.pauses == 1);
    CHECK(guest.story.holds == true);
    REQUIRE(guest.execution.attach());
    CHECK(guest.story.pauses == 1);
    REQUIRE(guest.execution.resume(run_all));
    CHECK(guest.story.pauses == 0);
    CHECK(guest.story.holds == false);
    CHECK(guest.execution.wait_for_stop(0ms)->has_value() == false);
    guest.execution.interrupt();
    const auto stop = guest.execution.wait_for_stop(1s);
    REQUIRE((stop && *stop));
    CHECK((*stop)->cause == Cause::interrupt);
    CHECK(guest.story.pauses == 1);
    // One event for each resume.
    CHECK(guest.execution.wait_for_stop(0ms)->has_value() == false);
    REQUIRE(guest.execution.detach());
    CHECK(guest.story.pauses == 0);
    CHECK_FALSE(guest.story.holds);
    REQUIRE(guest.execution.detach());
    CHECK(guest.story.pauses == 0);
    CHECK(guest.story.written_before_pause);
}

TEST_CASE("xen run control: an interrupt of a guest that stands is none of the next run") {
    PausedGuest guest;
    REQUIRE(guest.execution.attach());
    guest.execution.interrupt();
    REQUIRE(guest.execution.resume(run_all));
    CHECK(guest.execution.wait_for_stop(0ms)->has_value() == false);
    REQUIRE(guest.execution.detach());
    CHECK(guest.story.pauses == 0);
}

TEST_CASE("xen run control: what the toolstack has paused stays paused") {
    PausedGuest guest;
    guest.story.pauses = 1;
    REQUIRE(guest.execution.attach());
    CHECK(guest.story.pauses == 2);
    CHECK(guest.execution.why_it_stands().find("xl unpause guest") != std::string::npos);
    SUBCASE("at once") {}
    SUBCASE("after a run") { REQUIRE(guest.execution.resume(run_all)); }
    REQUIRE(guest.execution.detach());
    CHECK(guest.story.pauses == 1);
}

TEST_CASE("xen run control: nothing is left when it ends without detach") {
    Story story;
    test::FakeFrames frames;
    ForeignMemory memory{frames, nullptr, {}, {}};
    {
        XenExecution execution{std::make_unique<FakePausing>(story), memory};
        REQUIRE(execution.attach());
    }
    CHECK(story.pauses == 0);
    CHECK_FALSE(story.holds);
}

TEST_CASE("xen run control: a guest that ends") {
    PausedGuest guest;
    REQUIRE(guest.execution.attach());
    SUBCASE("while it runs") {
        REQUIRE(guest.execution.resume(run_all));
        SUBCASE("destroyed") { guest.story.exists = false; }
        SUBCASE("powered off") {
            guest.story.info.shutdown = 1;
            guest.story.info.shutdown_reason = SHUTDOWN_poweroff;
        }
        SUBCASE("at the moment of an interrupt") {
            guest.story.exists = false;
            guest.execution.interrupt();
        }
    }
    SUBCASE("while it stands") {
        guest.story.exists = false;
        REQUIRE(guest.execution.resume(run_all));
    }
    const auto stop = guest.execution.wait_for_stop(1s);
    REQUIRE((stop && *stop));
    CHECK((*stop)->cause == Cause::exited);
    CHECK_FALSE(guest.story.holds);
    CHECK(guest.execution.detach());
}

TEST_CASE("xen run control: what cannot be attached") {
    PausedGuest guest;
    Errc expected{};
    SUBCASE("it is being saved") {
        guest.story.info.shutdown = 1;
        guest.story.info.shutdown_reason = SHUTDOWN_suspend;
        expected = Errc::busy;
    }
    SUBCASE("it is dying") {
        guest.story.info.dying = 1;
        expected = Errc::target_gone;
    }
    SUBCASE("Xen refuses") {
        guest.story.refuses = true;
        expected = Errc::backend;
    }
    const auto attached = guest.execution.attach();
    REQUIRE_FALSE(attached);
    CHECK(attached.error().code == expected);
    CHECK(guest.story.pauses == 0);
    CHECK_FALSE(guest.story.holds);
}

TEST_CASE("xen run control: what a pause cannot do is refused, and the guest stands on") {
    PausedGuest guest;
    REQUIRE(guest.execution.attach());
    for (const auto action : {VcpuAction::step, VcpuAction::hold}) {
        const auto actions = std::to_array({VcpuAction::run, action});
        const auto resumed = guest.execution.resume(actions);
        REQUIRE_FALSE(resumed);
        CHECK(resumed.error().code == Errc::unsupported);
        CHECK(guest.story.pauses == 1);
    }
}
