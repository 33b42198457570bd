#include "os-awareness/thread_locals.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>

#include "os-awareness/auxiliary_vector.h"
#include "os-awareness/elf/dynamic_symbols.h"
#include "os-awareness/elf/format.h"

namespace exo::os {
namespace {

constexpr unsigned most_headers = 128;
constexpr unsigned most_objects = 4096;  // that a process has loaded
constexpr unsigned most_pieces = 1024;   // of glibc's list of modules

// The head of struct link_map that all C libraries share with debuggers (<link.h>).
struct LinkMap {
    std::uint64_t bias = 0;
    std::uint64_t name = 0;
    std::uint64_t dynamic = 0;
    std::uint64_t next = 0;
    std::uint64_t previous = 0;
};

Result<VirtualAddress> in_program(AddressSpace& space, std::string_view auxv, VirtualAddress thread_pointer,
                                  std::uint64_t offset) {
    const VirtualAddress headers{auxiliary_value(auxv, at_program_headers)};
    const std::uint64_t count = auxiliary_value(auxv, at_program_header_count);
    if (auxiliary_value(auxv, at_program_header_bytes) != sizeof(elf::SegmentHeader) || count > most_headers)
        return fail(Errc::bad_data, "the auxiliary vector tells of no 64-bit program");
    for (std::uint64_t index = 0; index < count; ++index) {
        const auto header =
            TRY(space.read_value<elf::SegmentHeader>(headers + index * sizeof(elf::SegmentHeader)));
        if (header.type != elf::segment_tls) continue;
        const std::uint64_t align = std::max<std::uint64_t>(header.align, 1);
        const std::uint64_t padding = (0 - header.address - header.memory_bytes) & (align - 1);
        return VirtualAddress{raw(thread_pointer) - header.memory_bytes - padding + offset};
    }
    return fail(Errc::not_found, "the program has no thread-local variables (no PT_TLS)");
}

// All objects that were loaded together with the one whose link_map is at `any`: `use(map)` until it gives
// true.
template <class Use>
Result<bool> each_object(AddressSpace& space, VirtualAddress any, Use use) {
    LinkMap map = TRY(space.read_value<LinkMap>(any));
    for (unsigned count = 0; map.previous != 0; ++count) {
        if (count == most_objects) return fail(Errc::bad_data, "the list of loaded objects is a ring");
        map = TRY(space.read_value<LinkMap>(VirtualAddress{map.previous}));
    }
    for (unsigned count = 0; count < most_objects; ++count) {
        if (TRY(use(map))) return true;
        if (map.next == 0) return false;
        map = TRY(space.read_value<LinkMap>(VirtualAddress{map.next}));
    }
    return fail(Errc::bad_data, "the list of loaded objects has no end");
}

// Of the first object that defines it; nothing where none does.
Result<std::optional<VirtualAddress>> find_symbol(AddressSpace& space, VirtualAddress any,
                                                  std::string_view name) {
    std::optional<VirtualAddress> found;
    CHECK_OK(each_object(space, any, [&](const LinkMap& map) -> Result<bool> {
        const auto symbols = DynamicSymbols::read(space, VirtualAddress{map.dynamic}, map.bias);
        const auto value = symbols ? symbols->find(name) : fail(symbols.error());
        if (value) found = *value;
        return value.has_value();
    }));
    return found;
}

// What glibc's descriptors say, found among the objects that `any` was loaded with.
class Glibc {
public:
    Glibc(AddressSpace& space, VirtualAddress any) : space_(&space), any_(any) {}

    // Where the member is, or its element `index`; `name`: "link_map_l_tls_modid".
    Result<VirtualAddress> place(VirtualAddress object, std::string_view name, std::uint64_t index = 0) {
        const auto field = TRY(descriptor(name));
        return object + field.offset + index * (field.bits / 8);
    }
    Result<std::uint64_t> value(VirtualAddress object, std::string_view name, std::uint64_t index = 0) {
        const auto at = TRY(place(object, name, index));
        if (TRY(descriptor(name)).bits == 32) return TRY(space_->read_value<std::uint32_t>(at));
        return space_->read_value<std::uint64_t>(at);
    }
    // unsupported: it is no glibc.
    Result<VirtualAddress> symbol(std::string_view name) {
        const auto found = TRY(find_symbol(*space_, any_, name));
        if (!found)
            return fail(Errc::unsupported,
                        "thread-local variables of libraries are found in programs of "
                        "glibc alone; none that is loaded has " +
                            std::string{name});
        return *found;
    }

private:
    struct Descriptor {  // DB_DESC_SIZE, DB_DESC_NELEM, DB_DESC_OFFSET of nptl_db/db_info.c
        std::uint32_t bits = 0;
        std::uint32_t count = 0;
        std::uint32_t offset = 0;
    };
    Result<Descriptor> descriptor(std::string_view name) {
        return space_->read_value<Descriptor>(TRY(symbol("_thread_db_" + std::string{name})));
    }

    AddressSpace* space_;
    VirtualAddress any_;
};

// The generation of a thread's vector that has the module for the first time: an older vector may still name
// what was loaded under that number before.
Result<std::uint64_t> generation_of(Glibc& glibc, std::uint64_t module) {
    const VirtualAddress loader = TRY(glibc.symbol("_rtld_global"));
    VirtualAddress piece{TRY(glibc.value(loader, "rtld_global__dl_tls_dtv_slotinfo_list"))};
    for (unsigned count = 0; count < most_pieces && raw(piece) != 0; ++count) {
        const std::uint64_t length = TRY(glibc.value(piece, "dtv_slotinfo_list_len"));
        if (module < length)
            return glibc.value(TRY(glibc.place(piece, "dtv_slotinfo_list_slotinfo", module)),
                               "dtv_slotinfo_gen");
        module -= length;
        piece = VirtualAddress{TRY(glibc.value(piece, "dtv_slotinfo_list_next"))};
    }
    return fail(Errc::bad_data, "the dynamic linker's list of thread-local storage has no such module");
}

// td_thr_tlsbase() of glibc's nptl_db.
Result<VirtualAddress> block_of_library(Glibc& glibc, VirtualAddress thread_pointer,
                                        VirtualAddress link_map) {
    constexpr std::uint64_t none = 0;              // NO_TLS_OFFSET, and
    constexpr std::uint64_t dynamic = UINT64_MAX;  // FORCED_DYNAMIC_TLS_OFFSET: sysdeps/x86_64, TLS_TCB_AT_TP
    const std::uint64_t module = TRY(glibc.value(link_map, "link_map_l_tls_modid"));
    if (module == 0) return fail(Errc::not_found, "the library has no thread-local variables");
    const std::uint64_t offset = TRY(glibc.value(link_map, "link_map_l_tls_offset"));
    if (offset != none && offset != dynamic) return VirtualAddress{raw(thread_pointer) - offset};

    const VirtualAddress vector{TRY(glibc.value(thread_pointer, "pthread_dtvp"))};
    const std::uint64_t generation = TRY(glibc.value(TRY(glibc.place(vector, "dtv_dtv")), "dtv_t_counter"));
    if (generation >= TRY(generation_of(glibc, module))) {
        const std::uint64_t block =
            TRY(glibc.value(TRY(glibc.place(vector, "dtv_dtv", module)), "dtv_t_pointer_val"));
        if ((block & 1U) == 0) return VirtualAddress{block};  // TLS_DTV_UNALLOCATED
    }
    return fail(Errc::not_found,
                "this thread has not looked at a thread-local variable of that library yet, "
                "so it has none");
}

}  // namespace

Result<VirtualAddress> thread_local_address(AddressSpace& space, std::string_view auxv,
                                            VirtualAddress thread_pointer,
                                            const ThreadLocalVariable& variable) {
    if (raw(thread_pointer) == 0)
        return fail(Errc::not_found, "the thread has no thread pointer yet: its C library has not begun");
    if (raw(variable.link_map) == 0) return in_program(space, auxv, thread_pointer, variable.offset);
    Glibc glibc{space, variable.link_map};
    const auto block = block_of_library(glibc, thread_pointer, variable.link_map);
    if (block) return *block + variable.offset;
    // The first object is the program, whatever the C library.
    const bool first = TRY(space.read_value<LinkMap>(variable.link_map)).previous == 0;
    if (block.error().code == Errc::unsupported && first)
        return in_program(space, auxv, thread_pointer, variable.offset);
    return fail(block.error());
}

}  // namespace exo::os
