// The part of Machine for tasks as a debugger of their process sees them.
#include <algorithm>
#include <vector>

#include "backends/arch/x86_64.h"
#include "os-awareness/auxiliary_vector.h"
#include "stub/machine.h"

namespace exo::stub {

Result<os::UserSpace*> Machine::process_space(const os::Task& task) {
    AddressSpace* whole = TRY(task_space(task));
    return &process_spaces_.try_emplace(task.address, *whole).first->second;
}

Result<AddressSpace*> Machine::readable_space(const os::Task& task) {
    auto* processes = os_ != nullptr ? os_->processes() : nullptr;
    if (processes == nullptr) return TRY(process_space(task));
    auto& space = readable_spaces_[task.address];
    if (!space) space = TRY(processes->readable_space(task));
    return space.get();
}

bool Machine::is_32_bit(const os::Task& task) {
    auto* processes = os_ != nullptr ? os_->processes() : nullptr;
    if (processes == nullptr || raw(task.memory) == 0) return false;
    const auto [known, is_new] = are_32_bit_.try_emplace(task.memory, false);
    if (is_new) {
        const auto auxv = processes->proc_file(task, "auxv");
        known->second = auxv && os::is_auxv_of_32_bit(*auxv);
    }
    return known->second;
}

bool Machine::is_private_page(PhysicalAddress page) {
    auto* processes = os_ != nullptr ? os_->processes() : nullptr;
    return processes != nullptr && processes->is_private_page(page).value_or(false);
}

Result<os::UserRegisters> Machine::user_registers(const os::Task& task, std::optional<VcpuId> vcpu,
                                                  bool all) {
    if (os_ == nullptr) return fail(Errc::no_such_thread, "no operating system is recognised any more");
    const RegisterSet* live = vcpu ? TRY(vcpu_registers(*vcpu)) : nullptr;
    // In the kernel, where it has come from is said by the slow ones.
    if (live != nullptr && (all || !x86::in_user_mode(*live))) live = TRY(all_vcpu_registers(*vcpu));
    return os_->user_registers(task, live);
}

Result<void> Machine::write_user_registers(const os::UserRegisters& registers, std::optional<VcpuId> vcpu,
                                           std::span<const RegisterNumber> numbers) {
    using Kind = os::RegisterPlace::Kind;
    RegisterSet live{layout()};
    std::vector<RegisterNumber> live_numbers;
    // All of them or none.
    for (const RegisterNumber number : numbers) {
        const auto& place = registers.places.at(number);
        if (place.kind == Kind::nowhere) {
            return fail(Errc::unsupported,
                        std::string{registers.values.layout().registers[number].name} +
                            " of this thread cannot be written: the kernel has saved it nowhere now");
        }
        if (place.kind != Kind::vcpu) continue;
        live.set_bytes(place.number, registers.values.bytes(number));
        live_numbers.push_back(place.number);
    }
    for (const RegisterNumber number : numbers) {
        const auto& place = registers.places.at(number);
        if (place.kind != Kind::memory) continue;
        CHECK_OK(os_->kernel_space().write(place.address, registers.values.bytes(number).first(place.size)));
    }
    forget_memory();
    if (live_numbers.empty()) return {};
    if (!vcpu) return fail(Errc::no_such_thread, "the thread is on no vCPU any more");
    return write_vcpu_registers(*vcpu, live, live_numbers);
}

}  // namespace exo::stub
