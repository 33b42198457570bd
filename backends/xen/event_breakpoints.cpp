// What EventExecution puts into the guest, and takes out again.
#include <algorithm>

#include "backends/arch/page_tables.h"
#include "backends/xen/event_execution.h"

namespace exo::xen {
namespace {

// Linux' page-table isolation: the kernel's table is the page before the user's (arch/x86/mm/pti.c).
constexpr std::uint64_t pti_user_bit = 0x1000;

DebugRegisterValues debug_registers_of(const HvmCpu& cpu) {
    return {.address = {cpu.dr0, cpu.dr1, cpu.dr2, cpu.dr3}, .control = cpu.dr7};
}

void set_debug_registers(HvmCpu& cpu, const DebugRegisterValues& values) {
    cpu.dr0 = values.address[0];
    cpu.dr1 = values.address[1];
    cpu.dr2 = values.address[2];
    cpu.dr3 = values.address[3];
    cpu.dr7 = values.control;
}

}  // namespace

bool EventExecution::supports(BreakpointKind kind) const {
    static_cast<void>(kind);  // reads alone, too, by the permissions of pages
    return has_breakpoints(abilities_);
}

Result<PhysicalAddress> EventExecution::locate(VcpuId id, VirtualAddress address,
                                               std::uint64_t clear_in_cr3) {
    const auto cpu = TRY(domain_.cpu(id));
    x86::PageTables tables{domain_.memory(), PhysicalAddress{cpu.cr3 & ~clear_in_cr3},
                           x86::paging_mode(cpu.cr0, cpu.cr4, cpu.msr_efer)};
    return TRY(tables.translate(address)).physical;
}

// Through the tables of whichever vCPU maps it; kernel text is not in the tables that user mode has under
// page-table isolation.
Result<PhysicalAddress> EventExecution::locate(VirtualAddress address) {
    for (const std::uint64_t clear : {std::uint64_t{0}, pti_user_bit})
        for (VcpuId id = 0; id < vcpus_.size(); ++id)
            if (auto found = locate(id, address, clear)) return found;
    return fail(Errc::bad_address, "no vCPU has " + hex(address) + " mapped");
}

Result<void> EventExecution::write_byte(PhysicalAddress place, std::byte value) {
    return domain_.memory().write(place, {&value, 1});
}

const EventExecution::Software* EventExecution::software_at(PhysicalAddress place) const {
    const auto found =
        std::ranges::find_if(software_, [&](const auto& row) { return row.second.place == place; });
    return found == software_.end() ? nullptr : &found->second;
}

Result<void> EventExecution::insert(BreakpointKind kind, VirtualAddress address, std::uint32_t length) {
    if (!attached_ || running_) return fail(Errc::busy, "the guest is not stopped");
    if (!supports(kind)) return fail(Errc::unsupported, "this hypervisor shows no breakpoints");
    if (kind == BreakpointKind::software) return insert_software(address);
    if (DebugRegisters::can_watch(kind, address, length)) {
        auto inserted = debug_.insert(kind, address, length);
        if (inserted || kind == BreakpointKind::hardware) return inserted;
    }
    return insert_watch(kind, address, length);
}

Result<void> EventExecution::remove(BreakpointKind kind, VirtualAddress address, std::uint32_t length) {
    if (kind == BreakpointKind::software) return remove_software(address);
    if (debug_.remove(kind, address, length)) return {};
    const auto frames = watches_.remove(kind, address, length);
    if (!frames) return {};
    for (const auto frame : *frames) CHECK_OK(apply_access(frame));
    return journal_watches();
}

// In views they end with these.
Result<void> EventExecution::journal_watches() {
    if (pages_.open()) return {};
    journal_.watched = watches_.frames();
    return save();
}

Result<void> EventExecution::insert_software(VirtualAddress address) {
    if (software_.contains(raw(address))) return {};
    const auto place = TRY(locate(address));
    if (const auto* other = software_at(place)) {  // the same memory by another address
        const auto same = *other;
        if (same.hidden) CHECK_OK(pages_.insert(place));
        software_[raw(address)] = same;
        return {};
    }
    Software breakpoint{.place = place, .hidden = hidden()};
    CHECK_OK(domain_.memory().read(place, {&breakpoint.original, 1}));
    if (breakpoint.hidden) {
        CHECK_OK(pages_.insert(place));
    } else {
        journal_.patches.push_back({place, std::to_integer<std::uint8_t>(breakpoint.original)});
        CHECK_OK(save());
        CHECK_OK(write_byte(place, int3));
    }
    software_[raw(address)] = breakpoint;
    return {};
}

Result<void> EventExecution::remove_software(VirtualAddress address) {
    const auto found = software_.find(raw(address));
    if (found == software_.end()) return {};
    const auto breakpoint = found->second;
    software_.erase(found);
    if (breakpoint.hidden) {
        CHECK_OK(pages_.remove(breakpoint.place));
        return apply_access(frame_of(breakpoint.place));
    }
    if (software_at(breakpoint.place) != nullptr) return {};
    std::byte now{};
    CHECK_OK(domain_.memory().read(breakpoint.place, {&now, 1}));
    // What the guest has written there since is the guest's.
    if (now == int3) CHECK_OK(write_byte(breakpoint.place, breakpoint.original));
    std::erase_if(journal_.patches, [&](const auto& patch) { return patch.place == breakpoint.place; });
    return save();
}

Result<void> EventExecution::insert_watch(BreakpointKind kind, VirtualAddress address, std::uint32_t length) {
    if (length == 0) return fail(Errc::bad_request, "a watchpoint of no bytes");
    PageWatches::Watch watch{.kind = kind, .address = address, .length = length, .pieces = {}};
    for (std::uint64_t done = 0; done < length;) {
        const auto place = TRY(locate(address + done));
        const auto left = std::min<std::uint64_t>(length - done, page_bytes - raw(place) % page_bytes);
        watch.pieces.push_back({place, static_cast<std::uint32_t>(left)});
        done += left;
    }
    // The domain's own view, without permissions, is where an access can then be let happen.
    if (hidden()) CHECK_OK(pages_.enter());
    const auto pieces = watch.pieces;
    watches_.insert(std::move(watch));
    CHECK_OK(journal_watches());
    for (const auto& piece : pieces) {
        auto applied = apply_access(frame_of(piece.place));
        if (applied) continue;
        static_cast<void>(remove(kind, address, length));
        return applied;
    }
    return {};
}

PageAccess EventExecution::access(std::uint64_t frame) const {
    return pages_.covers(frame) ? PageAccess::execute : watches_.access(frame);
}

Result<void> EventExecution::apply_access(std::uint64_t frame) {
    CHECK_OK(domain_.set_access(pages_.view(), frame, access(frame)));
    if (!pages_.open()) return {};
    return domain_.set_access(pages_.bare_view(), frame, watches_.access(frame));
}

// Of all vCPUs, which stand. The guest's own values are journalled before, and come back. A vCPU that has not
// been started has no registers: it gets them at the first stop after that.
Result<void> EventExecution::apply_debug_registers() {
    const auto wanted = debug_.values();
    auto& own = journal_.debug_registers;
    const bool changed = wanted != applied_;
    if (!changed && (debug_.empty() || own.size() == vcpus_.size())) return {};
    const auto known = own.size();
    for (VcpuId id = 0; id < vcpus_.size(); ++id) {
        if (std::ranges::find(own, id, &MonitorJournal::DebugRegisters::vcpu) != own.end()) continue;
        if (const auto cpu = domain_.cpu(id)) own.push_back({id, debug_registers_of(*cpu)});
    }
    if (own.size() > known) CHECK_OK(save());
    for (std::size_t i = changed ? 0 : known; i < own.size(); ++i) {
        const auto& values = debug_.empty() ? own[i].values : wanted;
        CHECK_OK(domain_.change_cpu(own[i].vcpu, [&](HvmCpu& cpu) { set_debug_registers(cpu, values); }));
    }
    applied_ = wanted;
    if (!debug_.empty()) return {};
    own.clear();
    return save();
}

Result<void> EventExecution::remove_all() {
    Result<void> result;
    const auto keep = [&](Result<void> next) {
        if (result && !next) result = std::move(next);
    };
    while (!software_.empty()) keep(remove_software(VirtualAddress{software_.begin()->first}));
    const auto frames = watches_.frames();
    watches_.clear();
    for (const auto frame : frames) keep(apply_access(frame));
    journal_.watched.clear();
    debug_.clear();
    keep(apply_debug_registers());
    return result;
}

}  // namespace exo::xen
