#include "backends/kvm/journal.h"

#include <doctest/doctest.h>

using namespace exo;
using namespace exo::kvm;

TEST_CASE("kvm: a journal is read as it was written") {
    JournalEntry entry;
    entry.target = "kvm:4711/12";
    entry.vmm_pid = 4711;
    entry.vmm_start = 0xffff'ffff'0000'0001;
    entry.vm_fd = 12;
    entry.owner_pid = 99;
    entry.owner_start = 7;
    entry.board = {.code = 0x7f00'0000'1000, .data = 0x7f00'0000'2000, .records = 2};
    entry.runs = {{13, 0x7f10'0000'0000, 0}, {14, 0x7f10'0000'3000, 5}};
    entry.patches = {{0x7f20'0000'0123, 0x55}};
    const auto again = parse_journal(to_text(entry));
    REQUIRE(again);
    CHECK(again->target == entry.target);
    CHECK(again->vmm_pid == entry.vmm_pid);
    CHECK(again->vmm_start == entry.vmm_start);
    CHECK(again->vm_fd == entry.vm_fd);
    CHECK(again->owner_pid == entry.owner_pid);
    CHECK(again->owner_start == entry.owner_start);
    CHECK(again->board.code == entry.board.code);
    CHECK(again->board.data == entry.board.data);
    CHECK(again->board.records == entry.board.records);
    REQUIRE(again->runs.size() == 2);
    CHECK(again->runs[1].fd == 14);
    CHECK(again->runs[1].address == 0x7f10'0000'3000);
    CHECK(again->runs[1].valid == 5);
    REQUIRE(again->patches.size() == 1);
    CHECK(again->patches[0].host == 0x7f20'0000'0123);
    CHECK(again->patches[0].original == 0x55);
}

TEST_CASE("kvm: what is no journal is refused") {
    for (const auto* text : {"", "[]", "{", "{}", R"({"target":"kvm:1"})", R"({"target":7,"vmm_pid":3})"})
        CHECK(parse_journal(text).error().code == Errc::bad_data);
}

TEST_CASE("kvm: a system call that was interrupted is made again as the kernel would") {
    ThreadRegisters registers{};
    registers.rip = 0x1002;
    registers.orig_rax = 202;  // futex
    const auto with_result = [&](std::int64_t result) {
        registers.rax = static_cast<unsigned long long>(result);
        return restarted(registers);
    };
    for (const std::int64_t code : {-512, -513, -514}) {
        CHECK(with_result(code).rip == 0x1000);
        CHECK(with_result(code).rax == 202);
    }
    CHECK(with_result(-516).rip == 0x1000);
    CHECK(with_result(-516).rax == 219);  // restart_syscall
    for (const std::int64_t code : {-4, 0, 7}) {
        CHECK(with_result(code).rip == 0x1002);
        CHECK(with_result(code).rax == static_cast<unsigned long long>(code));
    }
    registers.orig_rax = ~0ULL;  // in no call
    CHECK(with_result(-512).rip == 0x1002);
}
