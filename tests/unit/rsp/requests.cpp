#include "rsp/requests.h"

#include <doctest/doctest.h>

#include "rsp/hex.h"

using namespace std::literals;
using namespace exo::rsp;

namespace {

std::string hex(const std::vector<std::byte>& bytes) {
    std::string out;
    append_hex(out, std::span<const std::byte>(bytes));
    return out;
}

// Every request whose arguments are exactly ADDR,LENGTH refuses the same things.
template <typename Request>
void check_range() {
    const auto request = Request::parse("ffffffff81000000,1000");
    REQUIRE(request);
    CHECK(request->address == 0xffffffff81000000);
    CHECK(request->length == 0x1000);
    const auto huge = Request::parse("0,ffffffffffffffff");
    REQUIRE(huge);
    CHECK(huge->length == 0xffffffffffffffff);
    for (const char* text : {"", ",", "0", "0,", ",0", "0;4", "0,4 ", "0,4,", " 0,4", "x,4", "0,-4", "-1,4",
                             "10000000000000000,4", "0,10000000000000000"}) {
        CAPTURE(text);
        CHECK_FALSE(Request::parse(text));
    }
}

}  // namespace

TEST_CASE("the thread suffix is cut off the end") {
    std::string_view arguments = "0=0102;thread:002f;";
    CHECK(cut_thread_suffix(arguments) == ThreadId{ThreadId::any, 0x2f});
    CHECK(arguments == "0=0102");
    arguments = ";thread:p1.2;";
    CHECK(cut_thread_suffix(arguments) == ThreadId{1, 2});
    CHECK(arguments == "");
}

TEST_CASE("what is no thread suffix stays") {
    for (const std::string_view text : {"", "0", ";thread:1", ";thread:;", ";thread:", ";thread:zz;",
                                        "thread:1;", ";thread:1;2;", ";thread:1;;", ";thread:1;0"}) {
        CAPTURE(text);
        std::string_view arguments = text;
        CHECK_FALSE(cut_thread_suffix(arguments));
        CHECK(arguments == text);
    }
}

TEST_CASE("m and x") { check_range<ReadMemory>(); }

TEST_CASE("qCRC") { check_range<Checksum>(); }

TEST_CASE("M") {
    const auto request = WriteMemory::parse_hex("ffff,3:00aBff");
    REQUIRE(request);
    CHECK(request->address == 0xffff);
    CHECK(hex(request->bytes) == "00abff");
    const auto empty = WriteMemory::parse_hex("10,0:");
    REQUIRE(empty);
    CHECK(empty->bytes.empty());
    for (const char* text : {"", "0", "0,1", "0,1:", "0,0:00", "0,1:0", "0,1:0000", "0,2:00", "0,1:zz",
                             "0,1;00", ",1:00", "0,:", "0,ffffffffffffffff:00", "0,8000000000000000:"}) {
        CAPTURE(text);
        CHECK_FALSE(WriteMemory::parse_hex(text));
    }
}

TEST_CASE("X: any byte is data, and the count must be right") {
    const auto request = WriteMemory::parse_binary("ffff,6:\0:,#\xff}"sv);
    REQUIRE(request);
    CHECK(request->address == 0xffff);
    CHECK(hex(request->bytes) == "003a2c23ff7d");
    const auto probe = WriteMemory::parse_binary("ffffffff81000000,0:");
    REQUIRE(probe);
    CHECK(probe->address == 0xffffffff81000000);
    CHECK(probe->bytes.empty());
    for (const char* text : {"", "0", "0,0", "0,1:", "0,0:a", "0,1:ab", "0,2:a", ",1:a", "0,:", "0,1;a",
                             "0,ffffffffffffffff:a"}) {
        CAPTURE(text);
        CHECK_FALSE(WriteMemory::parse_binary(text));
    }
}

TEST_CASE("p") {
    const auto request = ReadRegister::parse("1f");
    REQUIRE(request);
    CHECK(request->number == 0x1f);
    for (const char* text : {"", "x", "1,", "1;thread:1;", "-1"}) {
        CAPTURE(text);
        CHECK_FALSE(ReadRegister::parse(text));
    }
}

TEST_CASE("P") {
    const auto request = WriteRegister::parse("10=0000108100ffffff");
    REQUIRE(request);
    CHECK(request->number == 0x10);
    CHECK(hex(request->bytes) == "0000108100ffffff");
    for (const char* text : {"", "1", "1=", "=00", "1=0", "1=xx", "1:00", "1=00;", "1==00"}) {
        CAPTURE(text);
        CHECK_FALSE(WriteRegister::parse(text));
    }
}

TEST_CASE("G: x digits leave a byte alone") {
    const auto request = WriteRegisters::parse("00xxfF");
    REQUIRE(request);
    REQUIRE(request->bytes.size() == 3);
    CHECK(request->bytes[0] == std::byte{0});
    CHECK_FALSE(request->bytes[1]);
    CHECK(request->bytes[2] == std::byte{0xff});
    for (const char* text : {"", "0", "000", "x0", "0x", "xxx", "0g", "00;thread:1;"}) {
        CAPTURE(text);
        CHECK_FALSE(WriteRegisters::parse(text));
    }
}

TEST_CASE("Z and z") {
    const auto request = Breakpoint::parse("0,ffffffff81000000,1");
    REQUIRE(request);
    CHECK(request->type == 0);
    CHECK(request->address == 0xffffffff81000000);
    CHECK(request->kind == 1);
    CHECK(request->conditions == "");

    const auto watch = Breakpoint::parse("4,1000,8");
    REQUIRE(watch);
    CHECK(watch->type == 4);
    CHECK(watch->kind == 8);

    const auto conditional = Breakpoint::parse("0,4,1;Xe,2482000000162019162022051327;cmds:0,X1,27");
    REQUIRE(conditional);
    CHECK(conditional->conditions == ";Xe,2482000000162019162022051327;cmds:0,X1,27");

    for (const char* text : {"", "0", "0,", "0,4", "0,4,", "5,4,1", "ff,4,1", "-1,4,1", "0,4,1,", "0,4,1X",
                             "0;4;1", "0,,1", ",4,1"}) {
        CAPTURE(text);
        CHECK_FALSE(Breakpoint::parse(text));
    }
}

TEST_CASE("QCatchSyscalls") {
    const auto all = CatchSystemCalls::parse("1");
    REQUIRE(all);
    CHECK(all->on);
    CHECK(all->numbers.empty());
    const auto some = CatchSystemCalls::parse("1;0;6e;40000001");
    REQUIRE(some);
    CHECK(some->numbers == std::vector<std::uint32_t>{0, 0x6e, 0x40000001});
    const auto none = CatchSystemCalls::parse("0");
    REQUIRE(none);
    CHECK_FALSE(none->on);
    for (const char* text :
         {"", "2", "0;1", "10", "1;", "1;;2", "1;2;", "1,2", "1;x", "1;-1", "1;100000000"}) {
        CAPTURE(text);
        CHECK_FALSE(CatchSystemCalls::parse(text));
    }
}

TEST_CASE("H") {
    const auto registers = SelectThread::parse("gp1.2");
    REQUIRE(registers);
    CHECK(registers->operation == 'g');
    CHECK(registers->thread == ThreadId{1, 2});
    const auto running = SelectThread::parse("c-1");
    REQUIRE(running);
    CHECK(running->operation == 'c');
    CHECK(running->thread == ThreadId{ThreadId::any, ThreadId::all});
    for (const char* text : {"", "g", "c", "1", "x1", "gp", "g1 ", "G1"}) {
        CAPTURE(text);
        CHECK_FALSE(SelectThread::parse(text));
    }
}

TEST_CASE("qXfer") {
    const auto request = Transfer::parse("features:read:target.xml:0,1000");
    REQUIRE(request);
    CHECK(request->object == "features");
    CHECK(request->annex == "target.xml");
    CHECK(request->offset == 0);
    CHECK(request->length == 0x1000);

    const auto bare = Transfer::parse("threads:read::fff,ffb");
    REQUIRE(bare);
    CHECK(bare->object == "threads");
    CHECK(bare->annex == "");
    CHECK(bare->offset == 0xfff);

    const auto colon = Transfer::parse("osdata:read:a:b:0,1");
    REQUIRE(colon);
    CHECK(colon->annex == "a:b");

    for (const char* text :
         {"", "threads", "threads:read", "threads:read:", "threads:read::", "threads:read::0",
          "threads:read::0,", "threads:read::,1", "threads:read:0,1", ":read::0,1", "threads:write::0,1",
          "threads:read::0,0", "threads:read::0,1,", "threads:read::-1,1"}) {
        CAPTURE(text);
        CHECK_FALSE(Transfer::parse(text));
    }
}

TEST_CASE("qSearch:memory") {
    const auto request = SearchMemory::parse("1000;fff;a;\0b"sv);
    REQUIRE(request);
    CHECK(request->address == 0x1000);
    CHECK(request->length == 0xfff);
    CHECK(request->pattern == "a;\0b"sv);
    for (const char* text : {"", "0", "0;1", "0;1;", "0,1;a", "0;1,a", ";1;a", "0;;a"}) {
        CAPTURE(text);
        CHECK_FALSE(SearchMemory::parse(text));
    }
}

TEST_CASE("qSupported of gdb 13") {
    const auto features = ClientFeatures::parse(
        ":multiprocess+;swbreak+;hwbreak+;qRelocInsn+;fork-events+;vfork-events+;exec-events+;vContSupported+"
        ";"
        "QThreadEvents+;no-resumed+;memory-tagging+;xmlRegisters=i386");
    CHECK(features.multiprocess);
    CHECK(features.swbreak);
    CHECK(features.hwbreak);
    CHECK(features.no_resumed);
    CHECK(features.vcont_supported);
    CHECK_FALSE(features.error_message);
    CHECK_FALSE(features.binary_upload);
}

TEST_CASE("qSupported of lldb 14") {
    const auto features =
        ClientFeatures::parse(":xmlRegisters=i386,arm,mips,arc;multiprocess+;fork-events+;vfork-events+");
    CHECK(features.multiprocess);
    CHECK_FALSE(features.swbreak);
    CHECK_FALSE(features.hwbreak);
    CHECK_FALSE(features.no_resumed);
    CHECK_FALSE(features.vcont_supported);
}

TEST_CASE("qSupported: only a plus is a yes, and a client that takes E.text knows x") {
    const auto none = ClientFeatures::parse(":multiprocess-;swbreak?;hwbreak;no-resumed=1;;;xswbreak+");
    CHECK_FALSE(none.multiprocess);
    CHECK_FALSE(none.swbreak);
    CHECK_FALSE(none.hwbreak);
    CHECK_FALSE(none.no_resumed);
    CHECK_FALSE(ClientFeatures::parse("").multiprocess);
    CHECK_FALSE(ClientFeatures::parse(":").multiprocess);
    CHECK(ClientFeatures::parse("multiprocess+").multiprocess);
    CHECK(ClientFeatures::parse(":error-message+").error_message);
    CHECK(ClientFeatures::parse(":error-message+").binary_upload);
    CHECK(ClientFeatures::parse(":binary-upload+").binary_upload);
    CHECK_FALSE(ClientFeatures::parse(":binary-upload+").error_message);
}
