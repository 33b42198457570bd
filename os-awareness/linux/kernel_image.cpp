#include "os-awareness/linux/kernel_image.h"

#include <algorithm>
#include <array>
#include <utility>

#include "os-awareness/linux/image_window.h"
#include "os-awareness/linux/kallsyms.h"
#include "os-awareness/linux/root_candidates.h"

namespace exo::os {
namespace {

constexpr std::string_view banner_prefix = "Linux version ";
constexpr std::size_t banner_limit = 512;
// CONFIG_PHYSICAL_START of every x86-64 configuration known to us, as _text is linked.
constexpr std::uint64_t default_link_address = 0xffff'ffff'8100'0000;
// _text is aligned to CONFIG_PHYSICAL_ALIGN, which is a multiple of this.
constexpr std::uint64_t image_alignment = 0x20'0000;

// A kernel's tables and constants are in its first tens of MiB; an early kernel maps 512 MiB or 1 GiB.
constexpr auto read_limits = std::to_array<std::uint64_t>({96ULL << 20, 512ULL << 20});

// Where AMD's C-bit was seen (CPUID 0x8000001f EBX[5:0]): bit 47, and 51 from Zen 2 on.
constexpr auto encryption_masks = std::to_array<std::uint64_t>({0, 1ULL << 47, 1ULL << 51});

// Newest name first: init_top_pgt is 4.14's (65ade2f872b4), swapper_pg_dir an alias in C.
constexpr auto root_symbols =
    std::to_array<std::string_view>({"init_top_pgt", "swapper_pg_dir", "init_level4_pgt"});

struct Search {
    const ProbeContext& context;
    ProbeFailure& failure;

    void report(const std::string& what) const {
        if (context.progress) context.progress(what);
    }
};

// Up to the line feed; empty if it is no banner.
std::string read_banner(AddressSpace& space, VirtualAddress address) {
    auto text = space.read_string(address, banner_limit);
    if (!text || !text->starts_with(banner_prefix)) return {};
    text->resize(std::min(text->size(), text->find('\n')));
    std::ranges::replace_if(*text, [](char c) { return c < ' ' || c > '~'; }, '?');
    return std::move(*text);
}

// For kernels without data symbols: "Linux version 5", not the format "%s version %s".
std::optional<VirtualAddress> search_banner(ConstBytes bytes, VirtualAddress start) {
    const auto text = as_text(bytes);
    for (auto at = text.find(banner_prefix); at != text.npos; at = text.find(banner_prefix, at + 1)) {
        const auto rest = text.substr(at + banner_prefix.size(), banner_limit);
        if (!rest.empty() && rest[0] >= '1' && rest[0] <= '9' && rest.find('\n') != rest.npos)
            return start + at;
    }
    return std::nullopt;
}

bool maps(PageTables& tables, VirtualAddress address, PhysicalAddress expected) {
    const auto where = tables.translate(address);
    return where && where->physical == expected;
}

// The mode in which tables at `root` map the image to where it is.
std::optional<x86::PagingMode> mode_of_own_tables(PhysicalMemory& memory, PhysicalAddress root,
                                                  x86::PagingMode first_guess, const KernelImage& image) {
    // A scan sees 5-level tables from the second level down, so the mode in which they were found is but a
    // guess.
    auto modes = std::to_array({x86::PagingMode::levels4, x86::PagingMode::levels5});
    if (first_guess == modes[1]) std::swap(modes[0], modes[1]);
    for (const auto mode : modes) {
        PageTables tables{memory, root, mode, image.encryption_mask};
        if (!maps(tables, image.start, image.physical_start)) continue;
        if (read_banner(tables, image.banner_address) == image.banner) return mode;
    }
    return std::nullopt;
}

void add_finding(KernelImage& image, std::string what, std::string value, std::string how) {
    image.findings.push_back({std::move(what), std::move(value), std::move(how)});
}

// VMCOREINFO of this kernel, not of one that ran before.
bool is_of(const VmCoreInfo& info, const KernelImage& image) {
    const auto theirs = info.symbol("_stext");
    const auto ours = image.symbols.find("_stext");
    if (theirs && ours) return *theirs == *ours;
    return theirs && raw(*theirs) >= raw(image.start) && raw(*theirs) - raw(image.start) < image_alignment;
}

void read_vmcoreinfo_of(KernelImage& image, AddressSpace& space) {
    const auto pointer = image.symbols.find("vmcoreinfo_data");
    if (!pointer) return;
    auto info = read_vmcoreinfo(space, *pointer);
    // Not an error: it is made late in the boot, and not in every configuration.
    if (info && is_of(*info, image)) image.vmcoreinfo = std::move(*info);
}

// Makes image.space go through the tables at `address`, if they are what the kernel runs on. What it went
// through before is what led to the image.
bool use_own_tables(KernelImage& image, std::optional<VirtualAddress> address) {
    if (!address || raw(*address) < raw(image.start) || raw(*address) >= raw(image.end)) return false;
    const PhysicalAddress root = image.physical_start + (raw(*address) - raw(image.start));
    const auto mode = mode_of_own_tables(image.space->physical(), root, image.space->mode(), image);
    if (!mode) return false;
    // As it is linked init_top_pgt has 4 levels, and without KASLR they are right; a CPU that runs on 5 is
    // given them later (arch/x86/kernel/head64.c, __startup_64()). A guess of 5 is a vCPU's own.
    if (image.space->mode() == x86::PagingMode::levels5 && *mode != x86::PagingMode::levels5) return false;
    image.space->set_root(root, *mode);
    image.root = root;
    image.mode = *mode;
    image.own_root = true;
    return true;
}

// The symbol by which the kernel's own tables were found, empty if they were not.
std::string_view use_own_tables_by_symbol(KernelImage& image) {
    const auto it = std::ranges::find_if(
        root_symbols, [&](std::string_view name) { return use_own_tables(image, image.symbols.find(name)); });
    return it == root_symbols.end() ? std::string_view{} : *it;
}

bool has_root_symbol(const KernelImage& image) {
    return std::ranges::any_of(root_symbols,
                               [&](std::string_view name) { return image.symbols.find(name).has_value(); });
}

void set_root(KernelImage& image, const std::string& how) {
    image.root = image.space->root();
    image.mode = image.space->mode();
    std::string found_by{use_own_tables_by_symbol(image)};
    if (!found_by.empty()) {
        found_by.insert(0, "symbol ");
    } else if (!has_root_symbol(image)) {
        auto info = scan_for_vmcoreinfo(image.space->physical(),
                                        [&](const VmCoreInfo& candidate) { return is_of(candidate, image); });
        if (info && use_own_tables(image, info->symbol("swapper_pg_dir"))) {
            found_by = "VMCOREINFO SYMBOL(swapper_pg_dir)";
        }
        if (info) image.vmcoreinfo = std::move(*info);
    }
    if (found_by.empty()) found_by = how + "; the kernel's own were not found";
    add_finding(image, "page_table_root", hex(image.root), std::move(found_by));
    add_finding(image, "paging_levels", image.mode == x86::PagingMode::levels5 ? "5" : "4",
                "walk from the root to _text and the banner");
}

void set_slide(KernelImage& image) {
    if (image.vmcoreinfo) {
        const auto offset = image.vmcoreinfo->kernel_offset();
        if (offset && *offset % image_alignment == 0 && *offset < kernel_window_bytes) {
            image.slide = *offset;
            add_finding(image, "slide", hex(image.slide), "VMCOREINFO KERNELOFFSET");
            return;
        }
    }
    image.slide = raw(image.start) - default_link_address;
    add_finding(image, "slide", hex(image.slide), "_text against " + hex(default_link_address));
}

bool has_data_symbols(const SymbolTable& symbols) {
    constexpr std::string_view data_types = "bBdDrR";
    return std::ranges::any_of(symbols.by_address(),
                               [&](const Symbol& s) { return data_types.find(s.type) != data_types.npos; });
}

// What VMCOREINFO names in the image beyond kallsyms: most of it is data, and it does not say of what type.
void add_symbols_of_vmcoreinfo(KernelImage& image) {
    if (image.data_symbols || !image.vmcoreinfo) return;
    image.vmcoreinfo->for_each_symbol([&](std::string_view name, VirtualAddress address) {
        if (address < image.start || address >= image.end || image.symbols.find(name)) return;
        image.symbols.add(address, 'D', name);
        ++image.added_symbols;
    });
    image.symbols.finish();
}

// What the symbols say of the image's borders, where they say something that can be.
void set_borders(KernelImage& image, const ImageWindow& window) {
    const auto text = image.symbols.find("_text");
    image.start = text && window.contains(*text) ? *text : window.start;
    const auto end = image.symbols.find("_end");
    const bool usable =
        end && raw(*end) > raw(image.start) && raw(*end) - raw(kernel_window) <= kernel_window_bytes;
    image.end = usable ? *end : window.end;
    image.physical_start = window.physical_of(image.start);
    add_finding(image, "kernel_image",
                hex(image.start) + "-" + hex(image.end) + " at " + hex(image.physical_start),
                text ? "page tables and symbols _text, _end" : "page tables");
}

// Symbols and where the banner is. Reads little of an image that maps more than it fills, if little suffices.
Result<void> read_symbols(KernelImage& image, PhysicalMemory& memory, const ImageWindow& window) {
    Error error;
    for (const std::uint64_t limit : read_limits) {
        const auto bytes = read_image(memory, window, limit);
        auto kallsyms = parse_kallsyms(bytes, window.start);
        if (kallsyms) {
            add_finding(image, "kallsyms", std::to_string(kallsyms->names.count),
                        "kallsyms: " + kallsyms->description());
            image.symbols = std::move(kallsyms->symbols);
            image.data_symbols = has_data_symbols(image.symbols);
            const auto banner = image.symbols.find("linux_banner");
            image.banner_address =
                banner ? *banner : search_banner(bytes, window.start).value_or(VirtualAddress{});
            return {};
        }
        error = std::move(kallsyms).error();
        if (bytes.size() < limit) break;
    }
    return fail(std::move(error).with_context(hex(window.start) + "-" + hex(window.end) + " at " +
                                              hex(window.physical)));
}

// The kernel that is seen from `candidate`, or why there is none.
Result<KernelImage> kernel_through(const Search& search, const RootCandidate& candidate,
                                   std::uint64_t encryption_mask) {
    PhysicalMemory& memory = search.context.memory;
    KernelImage image;
    image.encryption_mask = encryption_mask;
    image.space = std::make_unique<PageTables>(memory, candidate.root, candidate.mode, encryption_mask);
    const auto window = find_image_window(*image.space);
    if (!window) return fail(Errc::not_found, "maps nothing at " + hex(kernel_window));
    CHECK_OK(read_symbols(image, memory, *window));
    set_borders(image, *window);
    image.banner = read_banner(*image.space, image.banner_address);
    if (image.banner.empty())
        return fail(Errc::bad_data, "symbols, but no \"Linux version\" banner in the image");
    add_finding(image, "linux_banner", hex(image.banner_address), "read through the page tables");
    set_root(image, candidate.how);
    if (!image.vmcoreinfo) read_vmcoreinfo_of(image, *image.space);
    add_symbols_of_vmcoreinfo(image);
    set_slide(image);
    return image;
}

Result<KernelImage> kernel_of(const Search& search, const RootCandidate& candidate) {
    Error first;
    for (const std::uint64_t mask : encryption_masks) {
        auto found = kernel_through(search, candidate, mask);
        if (found) return found;
        if (mask == 0) first = std::move(found).error();
        if (first.code != Errc::not_found) break;
    }
    return fail(std::move(first));
}

bool executes(std::span<const RegisterSet> vcpus, const KernelImage& image) {
    return std::ranges::any_of(vcpus, [&](const RegisterSet& vcpu) {
        const auto pc = vcpu.get(x86::rip);
        return pc && *pc >= raw(image.start) && *pc < raw(image.end);
    });
}

// The first kernel that a vCPU executes, else the first: others are what former kernels left in RAM.
std::optional<KernelImage> kernel_by_scan(const Search& search) {
    search.report("searching all of the guest's memory for a kernel");
    std::optional<KernelImage> best;
    std::size_t kernels = 0;
    scan_for_roots(search.context.memory, [&](const RootCandidate& candidate) {
        auto found = kernel_of(search, candidate);
        if (!found) return false;
        ++kernels;
        const bool executed = executes(search.context.vcpus, *found);
        if (!best || executed) best = std::move(*found);
        constexpr std::size_t kernels_limit = 8;
        return executed || kernels == kernels_limit;
    });
    if (best)
        add_finding(*best, "kernel_found_by", "search of RAM for page tables", "no vCPU's CR3 led to it");
    return best;
}

}  // namespace

Result<KernelImage> find_kernel_image(const ProbeContext& context, ProbeFailure& failure) {
    const Search search{context, failure};
    for (const RootCandidate& candidate : roots_of_vcpus(context.vcpus, failure)) {
        auto found = kernel_of(search, candidate);
        if (found) {
            add_finding(*found, "kernel_found_by", hex(candidate.root), candidate.how);
            return found;
        }
        failure.steps.push_back("linux: page tables at " + hex(candidate.root) + " (" + candidate.how +
                                "): " + found.error().message);
    }
    if (!may_run_a_kernel(context.vcpus)) {
        failure.steps.emplace_back(
            "linux: memory was not searched: every vCPU executes firmware or a boot loader");
        return fail(Errc::not_found, "no Linux kernel yet: every vCPU executes firmware or a boot loader");
    }
    if (auto found = kernel_by_scan(search)) return std::move(*found);
    failure.steps.emplace_back("linux: no page tables in RAM lead to a kernel");
    return fail(Errc::not_found, "no Linux kernel found");
}

bool still_there(KernelImage& image) {
    image.space->forget();
    if (!image.own_root) use_own_tables_by_symbol(image);
    return maps(*image.space, image.start, image.physical_start) &&
           read_banner(*image.space, image.banner_address) == image.banner;
}

}  // namespace exo::os
