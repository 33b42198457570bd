#include "backends/kvm/thread.h"

#include <doctest/doctest.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <thread>

#include "backends/host/process.h"
#include "tests/unit/kvm/idle_process.h"

using namespace exo;
using namespace exo::kvm;

namespace {

// An IdleProcess with a second thread.
struct IdlePair {
    pid_t pid = ::fork();
    IdlePair() {
        if (pid != 0) return;
        std::thread{[] {
            for (;;) ::pause();
        }}.detach();
        for (;;) ::pause();
    }
    ~IdlePair() {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
    }
    IdlePair(const IdlePair&) = delete;
    IdlePair& operator=(const IdlePair&) = delete;

    [[nodiscard]] pid_t second() const {
        for (;;) {
            for (const auto& entry :
                 std::filesystem::directory_iterator{"/proc/" + std::to_string(pid) + "/task"}) {
                const auto tid = static_cast<pid_t>(std::stol(entry.path().filename().string()));
                if (tid != pid) return tid;
            }
        }
    }
};

}  // namespace

TEST_CASE("kvm: a process that is killed while its thread stands ends once that is let go") {
    const IdlePair process;
    REQUIRE(process.pid > 0);
    const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, process.pid, 0));
    REQUIRE(pidfd >= 0);
    {
        auto traced = TracedThread::seize(process.second());
        REQUIRE(traced);
        traced->interrupt();
        CHECK(traced->wait().kind == ThreadStop::Kind::interrupted);
        ::kill(process.pid, SIGKILL);
    }
    pollfd end{pidfd, POLLIN, 0};
    CHECK(::poll(&end, 1, 20'000) == 1);
    ::close(pidfd);
}

TEST_CASE("kvm: whether a thread can be traced is told without a trace") {
    const IdleProcess process;
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
