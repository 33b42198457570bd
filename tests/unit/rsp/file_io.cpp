#include "rsp/file_io.h"

#include <doctest/doctest.h>

using namespace exo::rsp;

TEST_CASE("vFile:open: a name in hex, flags, mode") {
    const auto request = OpenFile::parse("2f612c62,0,1c0");  // "/a,b": a comma of the name is in hex
    REQUIRE(request);
    CHECK(request->name == "/a,b");
    CHECK(request->reads_only());
    for (const auto* writing : {"2f61,1,0", "2f61,2,0", "2f61,200,0", "2f61,601,1b6"}) {
        CAPTURE(writing);
        CHECK_FALSE(OpenFile::parse(writing)->reads_only());
    }
    for (const auto* bad :
         {"", ",0,0", "2f61", "2f61,0", "2f61,0,", "2f6,0,0", "2g,0,0", "2f61,0,0,0", "2f61,-1,0"}) {
        CAPTURE(bad);
        CHECK_FALSE(OpenFile::parse(bad));
    }
}

TEST_CASE("vFile:pread: descriptor, count, offset") {
    const auto request = ReadFile::parse("3,1000,ffffffffffffffff");
    REQUIRE(request);
    CHECK(request->descriptor == 3);
    CHECK(request->count == 0x1000);
    CHECK(request->offset == UINT64_MAX);
    for (const auto* bad :
         {"", "3", "3,1000", "3,1000,", "3,,0", ",1,1", "3,1,2,3", "3,1,10000000000000000"}) {
        CAPTURE(bad);
        CHECK_FALSE(ReadFile::parse(bad));
    }
}

TEST_CASE("vFile: descriptors and names") {
    CHECK(FileDescriptor::parse("a")->descriptor == 10);
    CHECK_FALSE(FileDescriptor::parse("-1"));
    CHECK_FALSE(FileDescriptor::parse(""));
    CHECK(FileName::parse("2f61")->name == "/a");
    CHECK_FALSE(FileName::parse(""));
    CHECK_FALSE(FileName::parse("2f6"));
}

TEST_CASE("vFile: replies") {
    CHECK(file_error(FileErrno::erofs) == "F-1,1e");
    CHECK(file_result(std::uint64_t{16}) == "F10");
    CHECK(file_result(std::string_view{"ab;c"}) == "F4;ab;c");
    CHECK(file_result(std::string_view{}) == "F0;");
    // struct stat: 4-byte st_mode at 8, 8-byte st_size at 28, big endian, 64 bytes in all.
    const std::string status = file_status(0x0102030405);
    REQUIRE(status.size() == 4 + 64);
    CHECK(status.substr(0, 4) == "F40;");
    CHECK(status.substr(4 + 8, 4) == std::string("\0\0\x81\x24", 4));  // 0100444
    CHECK(status.substr(4 + 28, 8) == std::string("\0\0\0\1\2\3\4\5", 8));
}
