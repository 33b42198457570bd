#include "backends/kvm/memory.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <vector>

#include "backends/kvm/look_again.h"
#include "tests/unit/kvm/fake_monitor.h"

using namespace exo;
using namespace exo::kvm;
using namespace exo::kvm::test;
using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t ram_bytes = 64 * mib;

// This process is the monitor. Its RAM lies within a mapping that cannot be read: the kernel would merge it
// with anonymous memory beside it (an allocator's, a sanitizer's), and where it ends would be chance.
struct OwnMemory {
    static constexpr std::uint64_t guard_bytes = 2 * mib;

    explicit OwnMemory(bool shared) {
        around = ::mmap(nullptr, ram_bytes + 2 * guard_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        REQUIRE(around != MAP_FAILED);
        map = static_cast<std::byte*>(around) + guard_bytes;
        const int fd = shared ? ::memfd_create("ram", MFD_CLOEXEC) : -1;
        if (shared) REQUIRE(::ftruncate(fd, static_cast<off_t>(ram_bytes)) == 0);
        const int flags = MAP_FIXED | (shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
        REQUIRE(::mmap(map, ram_bytes, PROT_READ | PROT_WRITE, flags, fd, 0) == map);
        if (fd >= 0) ::close(fd);
    }
    OwnMemory(const OwnMemory&) = delete;
    OwnMemory& operator=(const OwnMemory&) = delete;
    ~OwnMemory() { ::munmap(around, ram_bytes + 2 * guard_bytes); }

    [[nodiscard]] std::uint64_t host() const { return reinterpret_cast<std::uint64_t>(map); }
    [[nodiscard]] std::byte* at(std::uint64_t address) const {
        return static_cast<std::byte*>(map) + address;
    }

    void* around = nullptr;
    void* map = nullptr;
};

constexpr std::uint64_t boot_sector = 0x7c10;
constexpr std::uint64_t nowhere = ~0xfffULL;  // no memory of this process is that large

// A vCPU without paging.
std::array<Witness, 1> executing(std::uint64_t address) {
    std::array<Witness, 1> vcpus;
    vcpus[0].addresses = {address};
    return vcpus;
}

void check_reads_and_writes(SlotMemory& memory, const OwnMemory& monitor) {
    std::array<std::byte, 8> bytes{};
    *monitor.at(40 * mib) = std::byte{0x5a};
    REQUIRE(memory.read(PhysicalAddress{40 * mib}, bytes));
    CHECK(bytes[0] == std::byte{0x5a});
    bytes[1] = std::byte{0xa5};
    REQUIRE(memory.write(PhysicalAddress{40 * mib}, bytes));
    CHECK(*monitor.at(40 * mib + 1) == std::byte{0xa5});
    CHECK(memory.read_some(PhysicalAddress{ram_bytes - 3}, bytes) == 3);
    const auto hole = memory.read(PhysicalAddress{0xa0000}, bytes);
    REQUIRE_FALSE(hole);
    CHECK(hole.error().code == Errc::bad_address);
    const auto rom = memory.write(PhysicalAddress{0xf0000}, bytes);
    REQUIRE_FALSE(rom);
    CHECK(rom.error().message.find("which is not written to") != std::string::npos);

    std::array<std::byte, 4> other{};
    std::array<PhysicalMemory::Fragment, 3> fragments{{{PhysicalAddress{40 * mib}, bytes, 0},
                                                       {PhysicalAddress{0xa0000}, other, 7},
                                                       {PhysicalAddress{ram_bytes - 2}, other, 0}}};
    memory.read_scattered(fragments);
    CHECK(fragments[0].read == 8);
    CHECK(fragments[1].read == 0);
    CHECK(fragments[2].read == 2);
}

}  // namespace

TEST_CASE("slots of a process") {
    for (const bool shared : {false, true}) {
        CAPTURE(shared);
        const OwnMemory monitor{shared};
        FakeMonitor content{{memory(monitor.host(), ram_bytes)}, {{0, ram_bytes, monitor.host()}}};
        const FakeGuest guest{content, {32 * mib, 60 * mib}};
        content.write_out();
        const auto process = Process::open(::getpid());
        REQUIRE(process);
        SlotMemory memory{*process, "the monitor"};
        CHECK(memory.regions().empty());
        std::array<std::byte, 8> bytes{};
        CHECK_FALSE(memory.read(PhysicalAddress{0}, bytes));
        const Witness witnesses[] = {guest.witness()};
        const auto loaded = memory.load(witnesses);
        REQUIRE_MESSAGE(loaded, loaded.error().message);
        CHECK(memory.confirmed() >= 4);
        CHECK(memory.access_method() == (shared ? "pread of a shared file" : "process_vm_readv"));
        REQUIRE(memory.regions().size() == 3);
        CHECK(memory.regions()[2].end() == ram_bytes);
        check_reads_and_writes(memory, monitor);

        // A guest that was reset shows less, or nothing at all, and has the same memory.
        *monitor.at(boot_sector) = std::byte{0x90};
        const auto notes = memory.notes().size();  // of what else this process has
        for (const std::uint64_t address : {boot_sector, nowhere}) {
            CHECK(memory.load(executing(address)));
            CHECK(memory.confirmed() >= 4);
            CHECK(memory.regions().size() == 3);
            CHECK(memory.notes().size() == notes);
        }

        CHECK_FALSE(memory.moved());
        REQUIRE(::mprotect(monitor.map, ram_bytes, PROT_READ) == 0);
        CHECK(memory.moved());
        CHECK_FALSE(memory.load(executing(nowhere)));
        CHECK(memory.regions().empty());
        CHECK(memory.notes().size() == 1);
    }
}

TEST_CASE("a guest that shows no memory yet has none, and says why") {
    const OwnMemory monitor{false};
    const auto process = Process::open(::getpid());
    REQUIRE(process);
    SlotMemory memory{*process, "the monitor"};
    REQUIRE_FALSE(memory.load(executing(nowhere)));
    CHECK(memory.regions().empty());
    REQUIRE(memory.notes().size() == 1);
    CHECK(memory.notes()[0].starts_with("guest memory: no vCPU has paging on"));
}

TEST_CASE("memory is looked for before it is used, once, and by each way of using it") {
    const auto process = Process::open(::getpid());
    REQUIRE(process);
    SlotMemory memory{*process, "the monitor"};
    int looks = 0;
    memory.when_used([&] {
        ++looks;
        CHECK(memory.regions().empty());  // a look may use it
    });
    std::array<std::byte, 8> bytes{};
    std::array<PhysicalMemory::Fragment, 1> fragments{{{PhysicalAddress{0}, bytes, 0}}};
    CHECK_FALSE(memory.read_some(PhysicalAddress{0}, bytes));
    CHECK(looks == 0);  // nobody has said that it may be worth it
    const std::vector<std::function<void()>> uses{
        [&] { CHECK_FALSE(memory.read_some(PhysicalAddress{0}, bytes)); },
        [&] { CHECK_FALSE(memory.write_some(PhysicalAddress{0}, bytes)); },
        [&] { memory.read_scattered(fragments); },
        [&] { CHECK(memory.regions().empty()); },
    };
    for (const auto& use : uses) {
        looks = 0;
        memory.look_before_use();
        memory.look_before_use();
        CHECK(looks == 0);
        use();
        use();
        CHECK(looks == 1);
    }
}

TEST_CASE("memory is looked for again when the guest shows something else, and not all the time") {
    LookAgain look;
    const LookAgain::Clock::time_point begin{};
    const auto end = begin + 10ms;
    CHECK_FALSE(look.worth_it({1, 2}, begin));
    look.looked({0xffff, 0xffff}, true, begin, end);
    CHECK_FALSE(look.worth_it({0xffff, 0xffff}, end + 1h));  // where it was
    CHECK_FALSE(look.worth_it({0x1000, 0xffff}, end + 199ms));
    CHECK(look.worth_it({0x1000, 0xffff}, end + 200ms));
    look.looked({0x1000, 0xffff}, false, begin, end);  // all is known
    CHECK_FALSE(look.worth_it({0x2000, 0x2000}, end + 1h));
}
