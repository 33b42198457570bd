// Single steps: whose they are, and what they cost.
#include <doctest/doctest.h>

#include "tests/support/controlled.h"

using namespace exo;
using namespace exo::stub;
using namespace exo::test;
using Fixture = Controlled;

TEST_CASE("steps of a thread that stays on its vCPU need no look at the guest") {
    Fixture f;
    const int looks = f.fake.kernel.refreshes;
    for (std::uint64_t at = 1; at <= 3; ++at) {
        REQUIRE(f.resume(at == 2 ? "s:1" : "s:1;c").has_value());
        f.script(Cause::step, 0, kernel_text + at);
        CHECK(f.stop().thread == 1);
        CHECK(f.control.known(1)->vcpu == 0U);
        CHECK(f.control.known(2) == nullptr);
    }
    CHECK(f.fake.kernel.refreshes == looks);
    CHECK(f.log() == Log{"resume step run", "resume step hold", "resume step run"});

    SUBCASE("a question for the others is one") {
        f.fake.switch_to(3, 1);
        const Thread* kept = f.control.known(1);
        CHECK(f.control.threads().on_vcpu(1)->tid == 3);
        CHECK(f.fake.kernel.refreshes == looks + 1);
        CHECK(f.control.known(1) == nullptr);
        CHECK(kept->tid == 1);
    }
    SUBCASE("so is a resume that names others") {
        f.fake.switch_to(3, 1);
        REQUIRE(f.resume("s:1;c:3").has_value());
        CHECK(f.fake.kernel.refreshes == looks + 1);
        CHECK(f.log() == Log{"resume step run"});
    }
    SUBCASE("and a step after which another stack is in use") {
        REQUIRE(f.resume("s:1").has_value());
        f.script(Cause::step, 0, kernel_text + 9, stack2, 3);
        f.runs_on();
        CHECK(f.fake.kernel.refreshes > looks);
    }
}
