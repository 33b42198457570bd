// The Breakpoints part of QemuExecution: Z and z of QEMU's stub, and what it takes to make them safe on KVM.
#include <algorithm>

#include "backends/qemu/execution.h"
#include "backends/qemu/recover.h"
#include "rsp/hex.h"

namespace exo::qemu {
namespace {

constexpr std::byte int3{0xcc};

std::string describe(BreakpointKind kind, std::uint64_t address) {
    static constexpr std::string_view names[] = {"breakpoint", "hardware breakpoint", "write watchpoint",
                                                 "read watchpoint", "access watchpoint"};
    return std::string{names[static_cast<std::size_t>(kind)]} + " at " + hex(address);
}

// QEMU target/i386/kvm/kvm.c, kvm_arch_insert_hw_breakpoint().
bool fits_debug_register(BreakpointKind kind, std::uint64_t address, std::uint32_t length) {
    if (kind == BreakpointKind::hardware) return true;
    return (length == 1 || length == 2 || length == 4 || length == 8) && (address & (length - 1)) == 0;
}

}  // namespace

// KVM has no read-only watchpoint on x86; TCG has all five, without limit.
bool QemuExecution::supports(BreakpointKind kind) const {
    return !kvm_ || kind != BreakpointKind::read_watch;
}

Result<void> QemuExecution::request(char operation, const Key& key) {
    const auto& [kind, address, length] = key;
    std::string payload(1, operation);
    rsp::append_hex_number(payload, static_cast<std::uint64_t>(kind));
    payload += ',';
    rsp::append_hex_number(payload, address);
    payload += ',';
    rsp::append_hex_number(payload, length);
    const auto code = kind == BreakpointKind::software ? Errc::bad_address : Errc::no_free_slot;
    return client_->command(payload, code, describe(kind, address));
}

Result<void> QemuExecution::insert(BreakpointKind kind, VirtualAddress address, std::uint32_t length) {
    const Key key{kind, raw(address), length};
    if (!process_.alive()) return fail(Errc::target_gone, "the guest is gone: QEMU has ended");
    if (stopped_client() == nullptr)
        return fail(Errc::busy, describe(kind, raw(address)) + ": the guest runs");
    if (inserted_.contains(key)) return {};
    if (!supports(kind) ||
        (kvm_ && kind != BreakpointKind::software && !fits_debug_register(kind, raw(address), length)))
        return fail(Errc::unsupported, describe(kind, raw(address)) + ": KVM has no such debug register");
    if (kvm_ && kind == BreakpointKind::software)
        CHECK_OK(insert_software_on_kvm(key));
    else
        CHECK_OK(request('Z', key));
    inserted_.insert(key);
    return {};
}

Result<void> QemuExecution::remove(BreakpointKind kind, VirtualAddress address, std::uint32_t length) {
    const Key key{kind, raw(address), length};
    if (!process_.alive()) return fail(Errc::target_gone, "the guest is gone: QEMU has ended");
    if (stopped_client() == nullptr)
        return fail(Errc::busy, describe(kind, raw(address)) + ": the guest runs");
    if (!inserted_.contains(key)) return {};
    if (kvm_ && kind == BreakpointKind::software)
        CHECK_OK(remove_software_on_kvm(key));
    else
        CHECK_OK(request('z', key));
    inserted_.erase(key);
    return {};
}

Result<void> QemuExecution::remove_all() {
    Result<void> result;
    const auto all = inserted_;
    for (const auto& [kind, address, length] : all) {
        auto removed = remove(kind, VirtualAddress{address}, length);
        if (!removed && result) result = std::move(removed);
    }
    return result;
}

// QEMU writes an int3 through the page tables that the selected vCPU uses just now. Another vCPU may see the
// page where this one does not: kernel text, with this one in user mode under KPTI.
Result<void> QemuExecution::on_any_vcpu(char operation, const Key& key) {
    Result<void> result;
    for (VcpuId vcpu = 0; vcpu < client_->threads().size(); ++vcpu) {
        CHECK_OK(client_->select_for_breakpoints(vcpu));
        result = request(operation, key);
        if (result) return result;
    }
    return result;
}

// Where `address` lies now, by a vCPU that maps it. QEMU answers "gpa: 0x1000" or "Unmapped".
Result<JournalPatch> QemuExecution::locate(std::uint64_t address) {
    for (VcpuId vcpu = 0; vcpu < client_->threads().size(); ++vcpu) {
        const auto text = TRY(monitor_.hmp("gva2gpa " + hex(address), vcpu));
        constexpr std::string_view mark = "gpa: 0x";
        if (!text.starts_with(mark)) continue;
        const auto digits = std::string_view{text}.substr(mark.size());
        const auto place = rsp::parse_hex_number(digits.substr(0, digits.find_first_of("\r\n ")));
        std::byte original{};
        if (place && memory_.read(PhysicalAddress{*place}, {&original, 1}))
            return JournalPatch{*place, std::to_integer<std::uint8_t>(original)};
    }
    return fail(Errc::bad_address,
                describe(BreakpointKind::software, address) + ": no vCPU maps it just now");
}

Result<void> QemuExecution::journal_patches() {
    journal_.patches.clear();
    for (const auto& [address, patch] : patches_) journal_.patches.push_back(patch);
    return write_journal(journal_);
}

// The physical place is kept from here on, since at removal no vCPU may map the address.
Result<void> QemuExecution::insert_software_on_kvm(const Key& key) {
    const auto address = std::get<1>(key);
    const auto patch = TRY(locate(address));
    patches_[address] = patch;
    CHECK_OK(journal_patches());
    if (auto inserted = on_any_vcpu('Z', key); !inserted) {
        patches_.erase(address);
        static_cast<void>(journal_patches());
        return inserted;
    }
    // QEMU counts an address that it still has in its list (see below), and does not write.
    std::byte now{};
    CHECK_OK(memory_.read(PhysicalAddress{patch.place}, {&now, 1}));
    if (now == int3) return {};
    return client_->write_physical(PhysicalAddress{patch.place}, {&int3, 1});
}

// Left to itself QEMU forgets an int3 that it cannot reach, and leaves it in the guest
// (accel/kvm/kvm-all.c, kvm_remove_all_breakpoints()).
Result<void> QemuExecution::remove_software_on_kvm(const Key& key) {
    const auto address = std::get<1>(key);
    auto removed = on_any_vcpu('z', key);
    const auto patch = patches_.find(address);
    if (patch == patches_.end()) return removed;
    CHECK_OK(undo_patch(*client_, memory_, patch->second));
    patches_.erase(patch);
    return journal_patches();
}

}  // namespace exo::qemu
