#include "backends/kvm/child_events.h"

#include <doctest/doctest.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <thread>

#include "backends/host/file_descriptor.h"
#include "backends/kvm/thread.h"
#include "backends/kvm/tracer.h"
#include "tests/unit/kvm/idle_process.h"

using namespace exo;
using namespace exo::kvm;
using namespace std::chrono_literals;

namespace {

using Clock = std::chrono::steady_clock;

constexpr auto patience = 20s;

}  // namespace

TEST_CASE("kvm: a stop wakes whoever waits for stops, alone or for other things as well") {
    watch_children();
    const IdleProcess process;
    const FileDescriptor wake{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    std::array<pollfd, 2> others{pollfd{wake.get(), POLLIN, 0}, pollfd{-1, POLLIN, 0}};
    Tracer tracer;
    for (const bool alone : {true, false}) {
        CAPTURE(alone);
        const auto waits = tracer.run([&] {
            auto traced = TracedThread::seize(process.pid);
            REQUIRE(traced);
            const auto deadline = Clock::now() + patience;
            traced->interrupt();
            int count = 0;
            while (!traced->poll() && Clock::now() < deadline) {
                wait_for_child(deadline, alone ? std::span<pollfd>{} : others);
                ++count;
            }
            CHECK(Clock::now() < deadline);
            return count;
        });
        CHECK(waits < 100);  // and not by looking all the time
        CHECK(others[0].revents == 0);
    }
}

TEST_CASE("kvm: other things wake whoever waits for stops too, and the end of the time") {
    watch_children();
    const FileDescriptor wake{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    std::array<pollfd, 2> others{pollfd{-1, POLLIN, 0}, pollfd{wake.get(), POLLIN, 0}};
    Tracer tracer;
    tracer.run([&] {
        const auto begin = Clock::now();
        while (Clock::now() < begin + 20ms) wait_for_child(begin + 20ms, others);
        CHECK(others[1].revents == 0);
        while (Clock::now() < begin + 40ms) wait_for_child(begin + 40ms);
        wait_for_child(begin);  // which is over

        const std::uint64_t one = 1;
        std::thread waker{[&] {
            std::this_thread::sleep_for(10ms);
            REQUIRE(::write(wake.get(), &one, sizeof one) == sizeof one);
        }};
        const auto deadline = Clock::now() + patience;
        while (others[1].revents == 0 && Clock::now() < deadline) wait_for_child(deadline, others);
        CHECK(others[1].revents == POLLIN);
        CHECK(others[0].revents == 0);
        waker.join();
    });
}
