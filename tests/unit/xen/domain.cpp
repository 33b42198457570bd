#include "backends/xen/domain.h"

#include <doctest/doctest.h>

#include <cerrno>

using namespace exo;
using namespace exo::xen;

TEST_CASE("xen: uuids as the toolstack writes them") {
    xen_domain_handle_t handle{};
    for (std::size_t i = 0; i < sizeof handle; ++i) handle[i] = static_cast<std::uint8_t>(i * 17);
    CHECK(to_text(handle) == "00112233-4455-6677-8899-aabbccddeeff");
}

TEST_CASE("xen: what Xen refuses is told in one line, with what to do") {
    const auto told = [](int number) { return xen_error("Xen domain 7", number, "4.20.1"); };
    CHECK(told(ESRCH).code == Errc::target_gone);
    CHECK(told(EPERM).code == Errc::denied);
    CHECK(told(EPERM).message.find("; run exogdb in dom0") != std::string::npos);
    // Of another version of the interface.
    CHECK(told(EACCES).code == Errc::unsupported);
    CHECK(told(EACCES).message.find("4.20.1") != std::string::npos);
    CHECK(told(EACCES).message.find("; install") != std::string::npos);
    CHECK(told(EOPNOTSUPP).code == Errc::unsupported);
    CHECK(told(EIO).code == Errc::backend);
    for (const int number : {ESRCH, EPERM, EACCES, EOPNOTSUPP, EIO}) {
        CHECK(told(number).message.starts_with("Xen domain 7: "));
        CHECK(told(number).message.find('\n') == std::string::npos);
    }
}

TEST_CASE("xen: that a domain stands by others is told when it lasts") {
    StandsByOthers pause;
    StandsByOthers::Clock::time_point now{};
    xc_dominfo_t info{};
    CHECK_FALSE(pause.lasts(info, now));
    info.paused = 1;
    CHECK_FALSE(pause.lasts(info, now));
    now += StandsByOthers::lasting / 2;
    CHECK_FALSE(pause.lasts(info, now));
    SUBCASE("it does") {
        now += StandsByOthers::lasting;
        CHECK(pause.lasts(info, now));
    }
    SUBCASE("it went on meanwhile") {
        info.paused = 0;
        CHECK_FALSE(pause.lasts(info, now));
        info.paused = 1;
        now += StandsByOthers::lasting;
        CHECK_FALSE(pause.lasts(info, now));
    }
    SUBCASE("it has crashed, and is kept") {
        now += StandsByOthers::lasting;
        info.paused = 0;
        info.shutdown = 1;
        info.shutdown_reason = SHUTDOWN_crash;
        CHECK(pause.lasts(info, now));
    }
    SUBCASE("it is the end") {
        now += StandsByOthers::lasting;
        info.dying = 1;
        CHECK_FALSE(pause.lasts(info, now));
    }
}

TEST_CASE("xen: what a domain's state means") {
    xc_dominfo_t info{};
    info.hvm = 1;
    info.arch_config.emulation_flags = XEN_X86_EMU_LAPIC;
    CHECK(kind_of(info) == "PVH");
    CHECK(state_of(info) == "running");
    info.blocked = 1;
    CHECK(state_of(info) == "blocked");
    info.paused = 1;
    CHECK(state_of(info) == "paused");
    CHECK(condition_of(info) == Condition::none);
    info.shutdown = 1;
    info.shutdown_reason = SHUTDOWN_suspend;
    CHECK(condition_of(info) == Condition::suspended);
    info.shutdown_reason = SHUTDOWN_crash;
    CHECK(condition_of(info) == Condition::crashed);
    info.shutdown_reason = SHUTDOWN_reboot;
    CHECK(condition_of(info) == Condition::gone);
    info.shutdown = 0;
    info.dying = 1;
    CHECK(state_of(info) == "dying");
    info = {};
    CHECK(kind_of(info) == "PV");
}
