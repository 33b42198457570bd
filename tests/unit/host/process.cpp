#include "backends/host/process.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace exo;

TEST_CASE("parse_maps") {
    const auto maps = parse_maps(
        "7f8f0bfff000-7f908bfff000 rw-s 00001000 00:01 1070                       "
        "/memfd:memory-backend-memfd (deleted)\n"
        "7fb3afe00000-7fb3cfe00000 rw-p 00000000 00:00 0 \n"
        "nonsense\n"
        "7fb3d3fff000-7fb3d4000000 ---p 00000000 00:00 0");
    REQUIRE(maps.size() == 3);
    CHECK(maps[0].start == 0x7f8f0bfff000);
    CHECK(maps[0].end == 0x7f908bfff000);
    CHECK(maps[0].shared);
    CHECK(maps[0].writable);
    CHECK(maps[0].offset == 0x1000);
    CHECK(maps[0].inode == 1070);
    CHECK(maps[0].device == "00:01");
    CHECK(maps[0].path == "/memfd:memory-backend-memfd (deleted)");
    CHECK_FALSE(maps[1].shared);
    CHECK(maps[1].path.empty());
    CHECK_FALSE(maps[2].writable);
}

TEST_CASE("this process, and one that ends") {
    const auto self = Process::open(::getpid());
    REQUIRE(self);
    CHECK(self->alive());
    CHECK(self->start_time() > 0);
    CHECK(process_of_thread(::getpid()) == ::getpid());
    CHECK(has_thread(::getpid(), ::getpid()));
    CHECK_FALSE(has_thread(::getpid(), 1));
    CHECK(status_field(::getpid(), "Pid") == std::to_string(::getpid()));
    CHECK_FALSE(status_field(::getpid(), "Nothing"));

    int gate[2];
    REQUIRE(::pipe(gate) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        char byte = 0;
        ::close(gate[1]);
        ::_exit(::read(gate[0], &byte, 1) == 0 ? 0 : 1);
    }
    const auto process = Process::open(child);
    REQUIRE(process);
    CHECK(process->alive());
    ::close(gate[0]);
    ::close(gate[1]);
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK_FALSE(process->alive());
}
