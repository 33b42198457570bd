#include "os-awareness/thread_locals.h"

#include <dlfcn.h>
#include <doctest/doctest.h>
#include <link.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdio>
#include <thread>
#include <vector>

#include "tests/support/glibc_builder.h"

using namespace exo;
using namespace exo::os;

namespace {

// This process, as a debugger sees it: its real C library, and all that it has loaded.
class OwnMemory final : public PhysicalMemory {
public:
    Result<std::size_t> read_some(PhysicalAddress address, MutableBytes out) override {
        const iovec local{out.data(), out.size()};
        const iovec remote{reinterpret_cast<void*>(raw(address)), out.size()};  // NOLINT
        const auto count = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
        if (count <= 0) return fail(Errc::bad_address, hex(address));
        return static_cast<std::size_t>(count);
    }
    Result<std::size_t> write_some(PhysicalAddress address, ConstBytes /*in*/) override {
        return fail(Errc::denied, hex(address));
    }
    [[nodiscard]] std::span<const MemoryRegion> regions() const override { return {}; }
};

class OwnSpace final : public AddressSpace {
public:
    Result<Translation> translate(VirtualAddress address) override {
        return Translation{.physical = PhysicalAddress{raw(address)}, .page_size = 4096};
    }
    [[nodiscard]] PhysicalMemory& physical() override { return memory_; }

private:
    OwnMemory memory_;
};

std::string own_auxv() {
    std::string content(4096, '\0');
    std::FILE* file = std::fopen("/proc/self/auxv", "rb");
    REQUIRE(file != nullptr);
    content.resize(std::fread(content.data(), 1, content.size(), file));
    std::fclose(file);
    return content;
}

VirtualAddress thread_pointer() {
    std::uint64_t value = 0;
    __asm__("mov %%fs:0, %0" : "=r"(value));  // tcbhead_t: it points to itself
    return VirtualAddress{value};
}

VirtualAddress address_of(const void* object) {
    return VirtualAddress{reinterpret_cast<std::uint64_t>(object)};
}

struct Object {  // as the dynamic linker tells the process itself of it
    std::string name;
    std::uint64_t bias = 0;
    bool has_block = false;     // PT_TLS
    void* block = nullptr;      // this thread's, null while it has none
    VirtualAddress link_map{};  // for a debugger
};

std::vector<Object> objects() {
    std::vector<Object> found;
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* out) {
            Object object{.name = info->dlpi_name, .bias = info->dlpi_addr, .block = info->dlpi_tls_data};
            for (int i = 0; i < info->dlpi_phnum; ++i)
                object.has_block = object.has_block || info->dlpi_phdr[i].p_type == PT_TLS;
            static_cast<std::vector<Object>*>(out)->push_back(object);
            return 0;
        },
        &found);
    for (Object& object : found) {
        for (link_map* map = _r_debug.r_map; map != nullptr; map = map->l_next) {
            if (map->l_addr == object.bias && object.name == map->l_name) object.link_map = address_of(map);
        }
    }
    return found;
}

Result<VirtualAddress> block_of(const Object& object) {
    OwnSpace space;
    return thread_local_address(space, own_auxv(), thread_pointer(), {.link_map = object.link_map});
}

// What a debugger is told of each object, against what the dynamic linker tells. The count of those with a
// block.
unsigned check_all() {
    unsigned blocks = 0;
    for (const Object& object : objects()) {
        if (raw(object.link_map) == 0) continue;  // the vDSO
        CAPTURE(object.name);
        const auto found = block_of(object);
        if (object.block != nullptr) {
            ++blocks;
            REQUIRE_MESSAGE(found.has_value(), found.error().message);
            CHECK(*found == address_of(object.block));
        } else {
            REQUIRE_FALSE(found);
            CHECK(found.error().code == Errc::not_found);
        }
    }
    return blocks;
}

thread_local long own_variable = 5;

}  // namespace

TEST_CASE("thread-local variables of everything that is loaded are where glibc has them, in each thread") {
    own_variable = 6;
    CHECK(check_all() > 0);
    std::thread([] {
        own_variable = 7;
        CHECK(check_all() > 0);
    }).join();
}

TEST_CASE("the program's own are found without its C library's help as well") {
    OwnSpace space;
    const auto all = objects();
    REQUIRE(all.front().name.empty());
    REQUIRE(all.front().block != nullptr);
    own_variable = 8;
    const auto expected = address_of(all.front().block);
    CHECK(*thread_local_address(space, own_auxv(), thread_pointer(), {}) == expected);
    const auto offset =
        raw(address_of(&own_variable)) - raw(expected);  // what DW_OP_form_tls_address is given
    CHECK(*thread_local_address(space, own_auxv(), thread_pointer(), {.offset = offset}) ==
          address_of(&own_variable));
}

TEST_CASE("a library that is loaded later: a thread has its copy once it has looked at it") {
    void* const library = dlopen(EXOGDB_TEST_LIBRARY, RTLD_NOW);
    REQUIRE_MESSAGE(library != nullptr, dlerror());
    using LookAtIt = long* (*)();
    const auto look_at_it = reinterpret_cast<LookAtIt>(dlsym(library, "look_at_it"));
    REQUIRE(static_cast<bool>(look_at_it));
    link_map* map = nullptr;
    REQUIRE(dlinfo(library, RTLD_DI_LINKMAP, static_cast<void*>(&map)) == 0);
    const Object object{.name = EXOGDB_TEST_LIBRARY, .link_map = address_of(map)};

    const auto before = block_of(object);
    REQUIRE_FALSE(before);
    CHECK(before.error().code == Errc::not_found);
    CHECK(before.error().message ==
          "this thread has not looked at a thread-local variable of that library yet, so it has none");
    const auto check = [&] {
        const long* second = look_at_it();
        CHECK(*second == 2);
        CHECK(*block_of(object) == address_of(second - 1));
    };
    std::thread(check).join();
    CHECK_FALSE(block_of(object));
    check();
    dlclose(library);
}

TEST_CASE("a vector that is older than the module is not looked at, nor one that has no block yet") {
    using test::GlibcProcess;
    GlibcProcess process;
    const auto find = [&] {
        return thread_local_address(process.space, {}, GlibcProcess::thread_pointer,
                                    {.link_map = GlibcProcess::library, .offset = 0x20});
    };
    CHECK(*find() == GlibcProcess::block + 0x20);
    process.put(VirtualAddress{GlibcProcess::vector}, GlibcProcess::generation - 1);
    CHECK(find().error().code == Errc::not_found);
    process.put(VirtualAddress{GlibcProcess::vector}, GlibcProcess::generation);
    process.put(VirtualAddress{GlibcProcess::vector + 16 * GlibcProcess::module}, UINT64_MAX);
    CHECK(find().error().code == Errc::not_found);
    process.put(GlibcProcess::library + 48, 0x80);  // l_tls_offset
    CHECK(*find() == VirtualAddress{raw(GlibcProcess::thread_pointer) - 0x80 + 0x20});
    process.put(GlibcProcess::library + 40, 0);  // l_tls_modid
    CHECK(find().error().code == Errc::not_found);
}

TEST_CASE("what is there instead of a process is an error") {
    test::FlatSpace nothing{VirtualAddress{0x10000}, 0x10000};
    const VirtualAddress pointer{0x11000};
    CHECK(thread_local_address(nothing, {}, VirtualAddress{0}, {}).error().code == Errc::not_found);
    CHECK(thread_local_address(nothing, {}, pointer, {}).error().code == Errc::bad_data);
    CHECK(thread_local_address(nothing, {}, pointer, {.link_map = VirtualAddress{0x500000}}).error().code ==
          Errc::bad_address);
    // The one object of a C library that is not glibc is the program.
    const auto program = thread_local_address(nothing, {}, pointer, {.link_map = VirtualAddress{0x12000}});
    CHECK(program.error().code == Errc::bad_data);
    // A library of it.
    nothing.put<std::uint64_t>(VirtualAddress{0x12020}, 0x13000);  // l_prev
    const auto library = thread_local_address(nothing, {}, pointer, {.link_map = VirtualAddress{0x12000}});
    CHECK(library.error().code == Errc::unsupported);
    // Lists that lead in a ring.
    nothing.put<std::uint64_t>(VirtualAddress{0x13020}, 0x12000);
    CHECK(thread_local_address(nothing, {}, pointer, {.link_map = VirtualAddress{0x12000}}).error().code ==
          Errc::bad_data);
    nothing.put<std::uint64_t>(VirtualAddress{0x12020}, 0);
    nothing.put<std::uint64_t>(VirtualAddress{0x12018}, 0x12000);
    CHECK(thread_local_address(nothing, {}, pointer, {.link_map = VirtualAddress{0x12000}}).error().code ==
          Errc::bad_data);
}
