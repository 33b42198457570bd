#include "backends/kvm/springboard.h"

#include <doctest/doctest.h>
#include <linux/kvm.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

using namespace exo;
using namespace exo::kvm;
using namespace std::chrono_literals;

namespace {

constexpr int run_fd = 13;

// A child process at the springboard's teller, in the place of a VMM's thread.
struct TellerProcess {
    TellerProcess() {
        const int file = ::memfd_create("mailbox", MFD_CLOEXEC);
        REQUIRE(::ftruncate(file, 4096) == 0);
        auto mapped = MappedPages::map(file, 4096);
        ::close(file);
        REQUIRE(mapped);
        pages = *std::move(mapped);
        void* const code = ::mmap(nullptr, Springboard::code_size, PROT_READ | PROT_WRITE | PROT_EXEC,
                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        REQUIRE(code != MAP_FAILED);
        std::memcpy(code, springboard_code().data(), springboard_code().size_bytes());
        const auto entry = Springboard{.code = reinterpret_cast<std::uint64_t>(code)}.teller();
        pid = ::fork();
        if (pid == 0) {
            asm volatile("mov %0, %%r12\n\txor %%r13d, %%r13d\n\tjmp *%1" ::"r"(pages.data()), "a"(entry)
                         : "r12", "r13");
            __builtin_unreachable();
        }
        ::munmap(code, Springboard::code_size);
    }
    TellerProcess(const TellerProcess&) = delete;
    TellerProcess& operator=(const TellerProcess&) = delete;
    ~TellerProcess() {
        if (pid <= 0) return;
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
    }

    [[nodiscard]] Mailbox& box() const { return *reinterpret_cast<Mailbox*>(pages.data()); }
    [[nodiscard]] bool carries_out(std::span<const CallRequest> calls) const {
        post(box(), calls);
        return wait_until_done(box(), std::chrono::steady_clock::now() + 20s);
    }

    MappedPages pages;
    pid_t pid = -1;
};

}  // namespace

TEST_CASE("kvm: the springboard's parts do not overlap") {
    const Springboard board{.code = 0x10000, .data = 0x20000, .records = 3};
    const auto end = board.data + Springboard::data_size(3);
    CHECK(board.record(1) - board.record(0) >= sizeof(ThreadRecord));
    CHECK(board.record(1) + sizeof(ThreadRecord) <= board.mailbox(1));
    CHECK(board.mailbox(1) + sizeof(Mailbox) <= board.record(2));
    CHECK(board.mailbox(2) + sizeof(Mailbox) <= board.arguments(0));
    CHECK(board.arguments(1) - board.arguments(0) == Springboard::argument_size);
    CHECK(board.arguments(2) + Springboard::argument_size <= end);
    CHECK(board.holds(board.after()));
    CHECK_FALSE(board.holds(board.data));
}

TEST_CASE("kvm: a teller carries out what is posted") {
    TellerProcess teller;
    REQUIRE(teller.pid > 0);
    CHECK(is_done(teller.box()));
    // Posted while it looks, about when it goes to sleep, and while it sleeps: none is overlooked.
    for (const auto& [turns, pause] : {std::pair{20'000, 0us}, {500, 20us}, {500, 40us}, {100, 1000us}}) {
        CAPTURE(pause.count());
        for (int turn = 0; turn < turns; ++turn) {
            if (pause > 0us) std::this_thread::sleep_for(pause * (turn % 8) / 4);
            const CallRequest request{.number = SYS_getpid};
            REQUIRE(teller.carries_out({&request, 1}));
            REQUIRE(teller.box().calls[0].result == teller.pid);
        }
    }
    const std::array two{CallRequest{.number = SYS_close, .a = 12345},
                         CallRequest{.number = SYS_getpgid, .a = 0}};
    REQUIRE(teller.carries_out(two));
    CHECK(teller.box().calls[0].result == -EBADF);
    CHECK(teller.box().calls[1].result == ::getpgid(0));

    const CallRequest last{.number = SYS_exit, .a = 7};
    post(teller.box(), {&last, 1});
    CHECK_FALSE(wait_until_done(teller.box(), std::chrono::steady_clock::now() + 10ms));
    int status = 0;
    CHECK(::waitpid(teller.pid, &status, 0) == teller.pid);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 7);
    teller.pid = -1;
}

TEST_CASE("kvm: of several tellers one that is done ends the wait") {
    const TellerProcess busy, quick;
    REQUIRE(busy.pid > 0);
    REQUIRE(quick.pid > 0);
    const CallRequest for_ever{.number = SYS_pause};
    post(busy.box(), {&for_ever, 1});
    const std::array<const Mailbox*, 2> both{&busy.box(), &quick.box()};
    const std::array<const Mailbox*, 2> turned{&quick.box(), &busy.box()};
    static constexpr timespec shortly{.tv_nsec = 2'000'000};  // the tellers have it, too
    for (int turn = 0; turn < 50; ++turn) {
        const CallRequest sleep{.number = SYS_nanosleep, .a = reinterpret_cast<std::uint64_t>(&shortly)};
        post(quick.box(), {&sleep, 1});
        while (!is_done(quick.box())) wait_until_any_done(turn % 2 == 0 ? both : turned, 20s);
        REQUIRE(quick.box().calls[0].result == 0);
    }
    CHECK_FALSE(is_done(busy.box()));
    wait_until_any_done(std::span{both}.first(1), 1ms);  // comes back
}

TEST_CASE("kvm: what a thread on the springboard made last") {
    const Springboard board{.code = 0x10000, .data = 0x20000, .records = 2};
    Mailbox box;
    ThreadRegisters registers{};
    registers.rdi = run_fd;
    registers.rsi = KVM_RUN;

    SUBCASE("under ptrace, its end not seen") {
        registers.rip = board.after();
        registers.rax = static_cast<std::uint64_t>(-EINTR);
        registers.rbx = 77;
        const auto last = last_run(registers, board, box, run_fd);
        CHECK(last.made);
        CHECK(last.result == -EINTR);
    }
    SUBCASE("in pause") {
        registers.rip = board.code + 0xc;
        registers.rax = 77;
        registers.rbx = 0;
        CHECK(last_run(registers, board, box, run_fd).result == 0);
        CHECK_FALSE(last_run(registers, board, box, run_fd + 1).made);
        registers.rsi = KVM_TRANSLATE;
        CHECK_FALSE(last_run(registers, board, box, run_fd).made);
    }
    SUBCASE("at the teller") {
        registers.rip = board.teller();
        CHECK_FALSE(last_run(registers, board, box, run_fd).made);  // nothing was posted
        const CallRequest run{.number = SYS_ioctl, .a = run_fd, .b = KVM_RUN};
        box.calls[0] = run;
        CHECK(last_run(registers, board, box, run_fd).made);
        CHECK(last_run(registers, board, box, run_fd).result == -EINTR);  // it has not begun
        registers.rip = board.teller_after();
        registers.rax = 0;
        CHECK(last_run(registers, board, box, run_fd).result == 0);
        box.calls[0].result = 5;
        CHECK(last_run(registers, board, box, run_fd).result == 5);
        CHECK_FALSE(last_run(registers, board, box, run_fd + 1).made);
        box.calls[0].b = KVM_TRANSLATE;
        CHECK_FALSE(last_run(registers, board, box, run_fd).made);
    }
}
