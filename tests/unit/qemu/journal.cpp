#include "backends/qemu/journal.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include "backends/host/process.h"

using namespace exo;
using namespace exo::qemu;

TEST_CASE("journal: what is written is read") {
    JournalEntry entry;
    entry.target = "libvirt:a \"guest\"";
    entry.connect = "qemu:///system";
    entry.uuid = "7818f56a-ffba-4362-92d1-7650b6e8b238";
    entry.qemu_pid = 4711;
    entry.qemu_start = 0xfedcba9876543210;
    entry.owner_pid = 4712;
    entry.owner_start = 99;
    entry.was_running = true;
    entry.stub_path = "/run/x/exogdb.sock";
    entry.stub_directory = "/run/x";
    entry.user_stub = "tcp:127.0.0.1:1234,server=on,wait=off";
    entry.patches = {{0x1ffffffff, 0x55}, {0, 0xff}};
    const auto read = parse_journal(to_text(entry));
    REQUIRE(read);
    CHECK(read->target == entry.target);
    CHECK(read->connect == entry.connect);
    CHECK(read->uuid == entry.uuid);
    CHECK(read->qemu_pid == 4711);
    CHECK(read->qemu_start == entry.qemu_start);
    CHECK(read->owner_pid == 4712);
    CHECK(read->owner_start == 99);
    CHECK(read->was_running);
    CHECK(read->stub_path == entry.stub_path);
    CHECK(read->stub_directory == entry.stub_directory);
    CHECK(read->user_stub == entry.user_stub);
    REQUIRE(read->patches.size() == 2);
    CHECK(read->patches[0].place == 0x1ffffffff);
    CHECK(read->patches[0].original == 0x55);
    CHECK(read->patches[1].original == 0xff);
}

TEST_CASE("journal: a broken one is refused") {
    CHECK_FALSE(parse_journal(""));
    CHECK_FALSE(parse_journal("[1]"));
    CHECK_FALSE(parse_journal(R"({"target":"x"})"));
    CHECK_FALSE(parse_journal(R"({"target":7,"qemu_pid":"1"})"));
    CHECK_FALSE(parse_journal(R"({"target":"x","qemu_pid":1)"));
}

TEST_CASE("journal: this process is alive, its pid at another start time is not") {
    JournalEntry entry;
    entry.owner_pid = ::getpid();
    entry.owner_start = start_time_of(::getpid()).value_or(0);
    CHECK(entry.owner_alive());
    ++entry.owner_start;
    CHECK_FALSE(entry.owner_alive());
}

TEST_CASE("journal: one at a time undoes what it says") {
    using namespace std::chrono_literals;
    JournalEntry entry;
    entry.target = "qemu:test";
    entry.qemu_pid = ::getpid();
    // Both owners live, or a server that starts on this machine meanwhile would undo it.
    entry.owner_pid = ::getpid();
    entry.owner_start = start_time_of(entry.owner_pid).value_or(0);
    REQUIRE(write_journal(entry));
    auto first = lock_journal(entry, 0ms);
    REQUIRE(first);
    REQUIRE(first->valid());
    CHECK(lock_journal(entry, 20ms).error().code == exo::Errc::busy);

    SUBCASE("done: nothing is left for the next") {
        remove_journal(entry.qemu_pid);
        const auto second = lock_journal(entry, 0ms);
        REQUIRE(second);
        CHECK_FALSE(second->valid());
    }
    SUBCASE("the guest has a new owner") {
        auto next = entry;
        next.owner_pid = ::getppid();
        next.owner_start = start_time_of(next.owner_pid).value_or(0);
        REQUIRE(write_journal(next));
        const auto second = lock_journal(entry, 0ms);
        REQUIRE(second);
        CHECK_FALSE(second->valid());
        CHECK(lock_journal(next, 0ms)->valid());
    }
    SUBCASE("given up half way: the next one tries") {
        first->reset();
        CHECK(lock_journal(entry, 0ms)->valid());
    }
    remove_journal(entry.qemu_pid);
}
