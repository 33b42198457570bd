// What one hit of a tracepoint collects.
#pragma once

#include "stub/live_context.h"
#include "stub/tracepoints.h"

namespace exo::stub {

class TraceCollector final : public LiveContext {
public:
    TraceCollector(Machine& machine, VcpuId vcpu, const CurrentThread& current, TraceVariables& variables,
                   TraceFrame& frame, std::size_t room)
        : LiveContext(machine, vcpu, current, variables), frame_(frame), room_(room) {}

    // Nothing: it is done. Memory that cannot be read is left out: the client shows it as unavailable.
    std::optional<rsp::AgentError> run(const rsp::TraceAction& action);

    Refusal collect_memory(std::uint64_t address, std::uint64_t length) override;
    Refusal collect_variable(std::uint64_t number) override;

private:
    TraceFrame& frame_;
    std::size_t room_;
};

}  // namespace exo::stub
