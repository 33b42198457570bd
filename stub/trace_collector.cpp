#include "stub/trace_collector.h"

#include <algorithm>

namespace exo::stub {

using Fault = rsp::AgentError::Fault;

rsp::AgentContext::Refusal TraceCollector::collect_memory(std::uint64_t address, std::uint64_t length) {
    if (length > rsp::CollectMemory::most_bytes || frame_.size() + length > room_) return Fault::buffer_full;
    TraceFrame::Memory block{.address = VirtualAddress{address}, .bytes = std::vector<std::byte>(length)};
    block.bytes.resize(read_memory(address, block.bytes));
    if (!block.bytes.empty()) frame_.memory.push_back(std::move(block));
    return std::nullopt;
}

rsp::AgentContext::Refusal TraceCollector::collect_variable(std::uint64_t number) {
    const auto value = variable(number);
    if (!value) return Fault::no_variable;
    frame_.variables[number] = *value;
    return std::nullopt;
}

std::optional<rsp::AgentError> TraceCollector::run(const rsp::TraceAction& action) {
    if (std::holds_alternative<rsp::CollectRegisters>(action)) {
        if (const auto registers = machine().vcpu_registers(vcpu())) frame_.registers = **registers;
        return std::nullopt;
    }
    if (const auto* by_expression = std::get_if<rsp::CollectByExpression>(&action))
        return rsp::evaluate(by_expression->expression, *this).error;
    const auto& memory = std::get<rsp::CollectMemory>(action);
    std::uint64_t address = memory.offset;
    if (memory.base) {
        const auto base = register_value(*memory.base);
        if (!base) return rsp::AgentError{Fault::no_register, 0, *memory.base};
        address += *base;
    }
    if (const auto refusal = collect_memory(address, memory.length))
        return rsp::AgentError{*refusal, 0, address};
    return std::nullopt;
}

}  // namespace exo::stub
