#include "backends/kvm/blocks.h"

#include <doctest/doctest.h>

using namespace exo;
using namespace exo::kvm;

TEST_CASE("what may be guest memory") {
    const auto maps = parse_maps(
        "555500000000-555510000000 rw-p 00000000 00:00 0          [heap]\n"
        "7f0000000000-7f0010000000 rw-p 00000000 00:00 0 \n"
        "7f0020000000-7f0060000000 rw-s 00000000 00:01 1070       /memfd:memory-backend-memfd (deleted)\n"
        "7f0060000000-7f00a0000000 rw-s 40000000 00:01 1070       /memfd:memory-backend-memfd (deleted)\n"
        "7f0100000000-7f0108000000 rw-s 00000000 00:0f 12         /dev/hugepages/libvirt/qemu/ram (deleted)\n"
        "7f0200000000-7f0204000000 rw-p 00000000 00:00 0          [anon:guest]\n"
        "7f0300000000-7f0302000000 rw-p 00000000 fe:01 99         /var/lib/vm/ram\n"
        "7f0310000000-7f0310010000 rw-p 00010000 fe:01 77         /usr/lib/libc.so.6\n"
        "7f0320000000-7f0330000000 rw-s 00000000 00:05 88         /dev/vfio/17\n"
        "7f0340000000-7f0340003000 rw-s 00000000 00:0e 14         anon_inode:kvm-vcpu:0\n"
        "7f0350000000-7f0360000000 r--s 00000000 fe:01 55         /var/lib/vm/firmware\n"
        "7f0370000000-7f0380000000 rwxp 00000000 00:00 0 \n"
        "7f0390000000-7f03a0000000 ---p 00000000 00:00 0 \n"
        "7ffc00000000-7ffc00800000 rw-p 00000000 00:00 0          [stack]\n");
    const auto blocks = ram_blocks(maps);
    REQUIRE(blocks.size() == 5);
    CHECK(blocks[0].start == 0x7f0020000000);
    CHECK(blocks[0].end == 0x7f00a0000000);
    CHECK(blocks[0].seams == std::vector<std::uint64_t>{0x7f0060000000});
    CHECK(blocks[1].start == 0x7f0000000000);
    CHECK(blocks[2].start == 0x7f0100000000);
    CHECK(blocks[3].start == 0x7f0200000000);
    CHECK(blocks[4].start == 0x7f0300000000);
}

TEST_CASE("adjacent mappings that have nothing to do with each other") {
    const auto maps = parse_maps(
        "7f0000000000-7f0000400000 rw-p 00000000 00:00 0 \n"
        "7f0000400000-7f0000800000 rw-p 00000000 00:00 0 \n"  // as after madvise of a part
        "7f0000800000-7f0000801000 rw-p 00000000 00:00 0 \n"
        "7f0000801000-7f0000c00000 rw-p 00000000 00:00 0 \n"
        "7f0000c00000-7f0001000000 rw-s 00000000 00:01 5  /memfd:a (deleted)\n"
        "7f0001000000-7f0001400000 rw-s 00000000 00:01 5  /memfd:a (deleted)\n");  // the same part once more
    const auto blocks = ram_blocks(maps);
    REQUIRE(blocks.size() == 5);
    CHECK(blocks[0].start == 0x7f0000000000);
    CHECK(blocks[0].size() == 0x800000);
}
