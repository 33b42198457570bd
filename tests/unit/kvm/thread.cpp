#include "backends/kvm/thread.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/host/process.h"

using namespace exo;
using namespace exo::kvm;

namespace {

// A process that does nothing, until the end.
struct Idle {
    pid_t pid = ::fork();
    Idle() {
        while (pid == 0) ::pause();
    }
    ~Idle() {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
    }
    Idle(const Idle&) = delete;
    Idle& operator=(const Idle&) = delete;
};

}  // namespace

TEST_CASE("kvm: whether a thread can be traced is told without a trace") {
    const Idle process;
    for (int i = 0; i < 100; ++i) {
        REQUIRE(TracedThread::try_to_seize(process.pid));
        CHECK(status_field(process.pid, "TracerPid") == "0");
    }
    const auto state = status_field(process.pid, "State").value_or("");
    CHECK_MESSAGE((state.starts_with('S') || state.starts_with('R')), state);
    const auto traced = TracedThread::seize(process.pid);
    REQUIRE(traced);
    const auto second = TracedThread::try_to_seize(process.pid);
    REQUIRE_FALSE(second);
    CHECK(second.error().code == Errc::busy);
    CHECK(second.error().message.find(std::to_string(::getpid())) != std::string::npos);
}
