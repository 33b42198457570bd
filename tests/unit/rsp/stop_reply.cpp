#include "rsp/stop_reply.h"

#include <doctest/doctest.h>

using namespace exo::rsp;

namespace {

StopReply stop(StopReply::Reason reason) {
    StopReply reply;
    reply.reason = reason;
    reply.thread = {1, 2};
    return reply;
}

}  // namespace

TEST_CASE("a stop with everything") {
    StopReply reply = stop(StopReply::Reason::swbreak);
    reply.core = 0x1f;
    reply.registers = {{6, "0011223344556677"}, {0x10, "xxxxxxxx"}, {0x104, "00"}};
    reply.extra = "name:init;";
    CHECK(to_string(reply, true) ==
          "T05thread:p1.2;core:1f;06:0011223344556677;10:xxxxxxxx;104:00;swbreak:;name:init;");
    CHECK(to_string(reply, false) ==
          "T05thread:2;core:1f;06:0011223344556677;10:xxxxxxxx;104:00;swbreak:;name:init;");
}

TEST_CASE("a thread that has ended") {
    StopReply reply = stop(StopReply::Reason::none);
    reply.kind = StopReply::Kind::thread_exited;
    CHECK(to_string(reply, true) == "w00;p1.2");
    CHECK(to_string(reply, false) == "w00;2");
}

TEST_CASE("why a thread stopped") {
    CHECK(to_string(stop(StopReply::Reason::none), true) == "T05thread:p1.2;");
    CHECK(to_string(stop(StopReply::Reason::hwbreak), true) == "T05thread:p1.2;hwbreak:;");
    CHECK(to_string(stop(StopReply::Reason::library), true) == "T05thread:p1.2;library:;");
    StopReply reply = stop(StopReply::Reason::watch);
    reply.watch_address = 0xffffffff82000010;
    CHECK(to_string(reply, true) == "T05thread:p1.2;watch:ffffffff82000010;");
    reply.reason = StopReply::Reason::rwatch;
    CHECK(to_string(reply, true) == "T05thread:p1.2;rwatch:ffffffff82000010;");
    reply.reason = StopReply::Reason::awatch;
    CHECK(to_string(reply, true) == "T05thread:p1.2;awatch:ffffffff82000010;");
}

TEST_CASE("a system call") {
    StopReply reply = stop(StopReply::Reason::syscall_entry);
    reply.system_call = 110;
    CHECK(to_string(reply, true) == "T05thread:p1.2;syscall_entry:6e;");
    reply.reason = StopReply::Reason::syscall_return;
    reply.system_call = UINT32_MAX;
    CHECK(to_string(reply, true) == "T05thread:p1.2;syscall_return:ffffffff;");
}

TEST_CASE("a signal, and no thread") {
    StopReply reply;
    reply.signal = Signal::interrupt;
    CHECK(to_string(reply, true) == "T02");
    reply.signal = Signal::none;
    reply.thread = {1, ThreadId::all};
    CHECK(to_string(reply, true) == "T00");
}

TEST_CASE("the end of a process, and nothing left that runs") {
    StopReply reply;
    reply.kind = StopReply::Kind::exited;
    reply.thread = {0x2f, 1};
    CHECK(to_string(reply, true) == "W00;process:2f");
    reply.exit_status = 0xab;
    CHECK(to_string(reply, false) == "Wab");
    reply.kind = StopReply::Kind::no_resumed;
    CHECK(to_string(reply, true) == "N");
}

TEST_CASE("the end of a process: its status, or gdb's number of the signal") {
    StopReply reply;
    reply.thread = {64, 0};
    reply.set_wait_status(0x700);
    CHECK(to_string(reply, true) == "W07;process:40");
    CHECK(to_string(reply, false) == "W07");
    reply.set_wait_status(9);
    CHECK(to_string(reply, true) == "X09;process:40");
    reply.set_wait_status(0x80 | 7);  // SIGBUS, with a core file
    CHECK(to_string(reply, true) == "X0a;process:40");
    reply.set_wait_status(40);
    CHECK(to_string(reply, true) == "X8f;process:40");
}

TEST_CASE("an object in slices") {
    CHECK(xfer_slice("abcdef", 0, 4) == "mabcd");
    CHECK(xfer_slice("abcdef", 4, 4) == "lef");
    CHECK(xfer_slice("abcdef", 0, 6) == "labcdef");
    CHECK(xfer_slice("abcdef", 0, 5) == "mabcde");
    CHECK(xfer_slice("abcdef", 5, 0xffffffffffffffff) == "lf");
    CHECK(xfer_slice("abcdef", 6, 4) == "l");
    CHECK(xfer_slice("abcdef", 0xffffffffffffffff, 0xffffffffffffffff) == "l");
    CHECK(xfer_slice("", 0, 4) == "l");
    CHECK(xfer_slice("abcdef", 0, 0) == "ma");
}

TEST_CASE("crc32 has the checksum of CRC-32/MPEG-2") {
    // The catalogue's check value of this polynomial with start ffffffff, neither reflected nor inverted.
    CHECK(crc32(0xffffffff, "123456789") == 0x0376e6e7);
    CHECK(crc32(0xffffffff, "") == 0xffffffff);
    CHECK(crc32(crc32(0xffffffff, "1234"), "56789") == 0x0376e6e7);
}
