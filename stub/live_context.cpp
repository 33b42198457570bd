#include "stub/live_context.h"

#include "backends/arch/i386.h"
#include "backends/arch/x86_64.h"

namespace exo::stub {
namespace {

constexpr std::uint16_t widest_value = 64;

}  // namespace

std::optional<std::uint64_t> LiveContext::register_value(std::uint64_t number) {
    const RegisterLayout& layout = of_32_bit_ ? i386::process_layout() : machine_.layout();
    if (number >= layout.registers.size() || layout.registers[number].bits > widest_value)
        return std::nullopt;
    auto wanted = static_cast<RegisterNumber>(number);
    if (of_32_bit_) wanted = *i386::whole(wanted);
    if (wanted >= machine_.layout().registers.size()) return std::nullopt;
    auto known = machine_.vcpu_registers(vcpu_);
    if (known && !(*known)->available(wanted)) known = machine_.all_vcpu_registers(vcpu_);
    const auto value = known ? (*known)->get(wanted) : std::nullopt;
    return value && of_32_bit_ ? std::optional{*value & UINT32_MAX} : value;
}

// The user half is the task's: page tables that a kernel thread has borrowed are not its own. The upper half
// is the kernel's (Documentation/arch/x86/x86_64/mm.rst).
Result<AddressSpace*> LiveContext::space_of(std::uint64_t address) {
    if (machine_.os() == nullptr || x86::in_upper_half(address)) return machine_.vcpu_space(vcpu_);
    const Thread* thread = current_();
    if (thread != nullptr && thread->task && machine_.os() != nullptr)
        return machine_.task_space(*thread->task);
    return machine_.vcpu_space(vcpu_);
}

std::size_t LiveContext::read_memory(std::uint64_t address, std::span<std::byte> out) {
    const auto space = space_of(address);
    return space ? (*space)->read_some(VirtualAddress{address}, out).value_or(0) : 0;
}

std::optional<std::uint64_t> LiveContext::variable(std::uint64_t number) {
    const auto it = variables_.find(number);
    return it == variables_.end() ? std::nullopt : std::optional{it->second.value};
}

bool LiveContext::set_variable(std::uint64_t number, std::uint64_t value) {
    const auto it = variables_.find(number);
    if (it == variables_.end()) return false;
    it->second.value = value;
    return true;
}

}  // namespace exo::stub
