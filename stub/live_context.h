// What an agent expression sees at a stop: the registers of the vCPU that stopped, and memory as the task
// sees it that runs there. Nothing of this needs a list of tasks.
#pragma once

#include <functional>
#include <string>

#include "rsp/agent_expression.h"
#include "stub/machine.h"
#include "stub/thread_map.h"
#include "stub/trace_variables.h"

namespace exo::stub {

// The thread on the vCPU that stopped, looked for when it is first wanted; null where it cannot be told.
using CurrentThread = std::function<const Thread*()>;

class LiveContext : public rsp::AgentContext {
public:
    LiveContext(Machine& machine, VcpuId vcpu, const CurrentThread& current, TraceVariables& variables)
        : machine_(machine), vcpu_(vcpu), current_(current), variables_(variables) {}

    // The numbers of registers are those of 32-bit programs (backends/arch/i386.h), or of the machine.
    void use_numbers_of_32_bit(bool wanted) { of_32_bit_ = wanted; }

    std::optional<std::uint64_t> register_value(std::uint64_t number) override;
    std::size_t read_memory(std::uint64_t address, std::span<std::byte> out) override;
    std::optional<std::uint64_t> variable(std::uint64_t number) override;
    bool set_variable(std::uint64_t number, std::uint64_t value) override;

protected:
    [[nodiscard]] Machine& machine() { return machine_; }
    [[nodiscard]] VcpuId vcpu() const { return vcpu_; }

private:
    Result<AddressSpace*> space_of(std::uint64_t address);

    Machine& machine_;
    VcpuId vcpu_;
    const CurrentThread& current_;
    TraceVariables& variables_;
    bool of_32_bit_ = false;
};

}  // namespace exo::stub
