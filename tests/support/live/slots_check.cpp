// slots_check QMP_SOCKET [LEAST_CONFIRMED [may-miss]]: what backends/kvm finds of a QEMU's memory from
// outside, with QEMU's own page walks in the place of KVM's, against what QEMU says. Exit status 0 if both
// say the same. It needs no KVM, and serves for every machine that QEMU can lay out.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "backends/arch/x86_64.h"
#include "backends/kvm/memory.h"
#include "backends/qemu/memory_map.h"
#include "backends/qemu/monitor.h"
#include "tests/support/qemu_guest.h"

namespace {

using namespace exo;

constexpr std::uint64_t mib = 1ULL << 20;

int failures = 0;

void check(bool ok, const std::string& what) {
    std::printf("%s %s\n", ok ? "  ok" : "FAIL", what.c_str());
    failures += ok ? 0 : 1;
}

// "gpa: 0x2a34000", or "Unmapped".
Result<std::optional<PhysicalAddress>> gva2gpa(qemu::Monitor& monitor, std::uint32_t cpu,
                                               VirtualAddress address) {
    const auto text = TRY(monitor.hmp("gva2gpa " + hex(address), cpu));
    if (text.starts_with("Unmapped")) return std::nullopt;
    constexpr std::string_view mark = "gpa: ";
    if (!text.starts_with(mark)) return fail(Errc::backend, "gva2gpa: " + text);
    return PhysicalAddress{std::strtoull(text.c_str() + mark.size(), nullptr, 16)};
}

Result<std::vector<kvm::Witness>> witnesses_of(qemu::Monitor& monitor) {
    std::vector<kvm::Witness> witnesses;
    const auto text = TRY(monitor.hmp("info registers -a"));
    for (const RegisterSet& registers : test::parse_info_registers(text)) {
        const auto value = [&](x86::Register number) { return registers.get(number).value_or(0); };
        kvm::Witness witness;
        witness.cr0 = value(x86::cr0);
        witness.cr3 = value(x86::cr3);
        witness.cr4 = value(x86::cr4);
        witness.efer = value(x86::efer);
        for (const auto number :
             {x86::rip, x86::rsp, x86::gdt_base, x86::idt_base, x86::tr_base, x86::gs_base})
            witness.addresses.push_back(value(number));
        const auto cpu = static_cast<std::uint32_t>(witnesses.size());
        witness.translate = [&monitor, cpu](VirtualAddress address) {
            return gva2gpa(monitor, cpu, address);
        };
        witnesses.push_back(std::move(witness));
    }
    return witnesses;
}

// Each slot lies in what QEMU has there.
void check_slots(std::span<const MemoryRegion> regions, std::span<const qemu::MapRange> map, bool may_miss) {
    for (const MemoryRegion& region : regions) {
        if (region.kind != MemoryRegion::Kind::ram) continue;
        const std::string place =
            hex(region.start) + " to " + hex(region.end() - 1) + " (" + region.name + ")";
        const bool is_ram = std::ranges::any_of(map, [&](const qemu::MapRange& range) {
            return range.region.kind == MemoryRegion::Kind::ram && range.region.start <= region.start &&
                   region.end() <= range.region.end();
        });
        check(is_ram, place + " is RAM of QEMU's");
        check(region.name == "ram" || may_miss, place + " is verified");
    }
}

// Each MiB of RAM above the first is in a slot, and shows what QEMU shows there.
void check_content(qemu::Monitor& monitor, kvm::SlotMemory& memory, std::span<const qemu::MapRange> map,
                   bool may_miss) {
    constexpr std::uint64_t least = 64 * mib;  // smaller ones are of devices
    std::uint64_t pages = 0;
    std::uint64_t different = 0;
    std::uint64_t missing = 0;
    for (const qemu::MapRange& range : map) {
        if (range.region.kind != MemoryRegion::Kind::ram || raw(range.region.start) < mib ||
            range.region.size < least)
            continue;
        const auto step = std::max<std::uint64_t>(mib, range.region.size / 512 / 4096 * 4096);
        for (auto at = raw(range.region.start); at < range.region.end(); at += step) {
            std::uint64_t ours = 0;
            ++pages;
            if (!memory.read(PhysicalAddress{at}, std::as_writable_bytes(std::span{&ours, 1}))) {
                ++missing;
                continue;
            }
            const auto text = monitor.hmp("xp/1gx " + hex(at));
            const auto colon = text ? text->find(": 0x") : std::string::npos;
            if (colon == std::string::npos || std::strtoull(text->c_str() + colon + 2, nullptr, 16) != ours)
                ++different;
        }
    }
    check(pages > missing && (missing == 0 || may_miss),
          std::to_string(missing) + " of " + std::to_string(pages) + " samples of QEMU's RAM are in no slot");
    check(different == 0, std::to_string(different) + " samples are not what QEMU shows");
}

Result<void> run(qemu::Monitor& monitor, std::size_t least_confirmed, bool may_miss) {
    const auto pid = monitor.process_hint();
    if (!pid) return fail(Errc::not_found, "the process of QEMU is not known");
    const auto process = TRY(Process::open(*pid));
    const auto witnesses = TRY(witnesses_of(monitor));
    kvm::SlotMemory memory{process, "QEMU"};
    CHECK_OK(memory.load(witnesses));
    std::printf("     %zu vCPUs, %zu page tables, read by %s\n", witnesses.size(), memory.confirmed(),
                memory.access_method().c_str());
    for (const auto& note : memory.notes()) std::printf("     note: %s\n", note.c_str());
    auto map = TRY(qemu::parse_flat_view(TRY(monitor.hmp("info mtree -f"))));
    check(memory.confirmed() >= least_confirmed,
          "at least " + std::to_string(least_confirmed) + " page tables");
    check(!memory.moved(), "the mappings are as they were");
    check_slots(memory.regions(), map, may_miss);
    check_content(monitor, memory, map, may_miss);
    std::uint64_t word = 0;
    check(!memory.read(PhysicalAddress{0xfee0'0000}, std::as_writable_bytes(std::span{&word, 1})),
          "a device is not read");
    return {};
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fputs("usage: slots_check QMP_SOCKET [LEAST_CONFIRMED [may-miss]]\n", stderr);
        return 2;
    }
    auto monitor = qemu::open_qmp_monitor(argv[1]);
    if (!monitor) {
        std::printf("FAIL %s\n", monitor.error().message.c_str());
        return 1;
    }
    static_cast<void>((*monitor)->execute("stop"));
    const auto done = run(**monitor, argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 1, argc > 3);
    static_cast<void>((*monitor)->execute("cont"));
    if (!done) check(false, done.error().message);
    return failures == 0 ? 0 : 1;
}
