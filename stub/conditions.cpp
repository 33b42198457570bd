#include "stub/conditions.h"

#include <algorithm>
#include <array>
#include <utility>

namespace exo::stub {
namespace {

// The client gets it after each look for a stop, and each is short.
constexpr std::size_t most_output = 1U << 20U;

class PrintingContext final : public LiveContext {
public:
    PrintingContext(Machine& machine, VcpuId vcpu, const CurrentThread& current, TraceVariables& variables,
                    std::function<void(std::string_view)> output)
        : LiveContext(machine, vcpu, current, variables), output_(std::move(output)) {}
    void print(std::string_view text) override { output_(text); }

private:
    std::function<void(std::string_view)> output_;
};

}  // namespace

bool ThreadFilter::takes(const Thread& thread) const {
    switch (by) {
        case By::tid: return thread.tid == number;
        case By::pid: return thread.task && !thread.task->idle && thread.task->tgid == number;
        case By::comm: return thread.task && thread.task->comm == comm;
    }
    return true;
}

std::string to_string(const ThreadFilter& filter) {
    switch (filter.by) {
        case ThreadFilter::By::tid: return "tid " + std::to_string(filter.number);
        case ThreadFilter::By::pid: return "pid " + std::to_string(filter.number);
        case ThreadFilter::By::comm: return "comm " + filter.comm;
    }
    return {};
}

void Conditions::set(const BreakpointKey& key, rsp::BreakpointProgram program) {
    if (program.empty()) return remove(key);
    programs_.insert_or_assign(key, std::move(program));
}

void Conditions::forget() {
    programs_.clear();
    filters_.clear();
    passed_.clear();
    output_.clear();
    lost_ = 0;
}

const rsp::BreakpointProgram* Conditions::program(const BreakpointKey& key) const {
    const auto it = programs_.find(key);
    return it == programs_.end() ? nullptr : &it->second;
}

bool Conditions::decide_at(VirtualAddress address) const {
    constexpr std::array kinds{BreakpointKind::software, BreakpointKind::hardware};
    return filters_.contains(address) || std::ranges::any_of(kinds, [&](BreakpointKind kind) {
               return program({kind, address, 1}) != nullptr;
           });
}

// A thread that cannot be told may be the one.
bool Conditions::filtered(VirtualAddress address, const CurrentThread& current) {
    const auto filter = filters_.find(address);
    if (filter == filters_.end()) return false;
    const Thread* thread = current();
    if (thread != nullptr && (thread->task || filter->second.by == ThreadFilter::By::tid))
        return !filter->second.takes(*thread);
    tell(address, "the filter", "which task runs there cannot be told");
    return false;
}

std::optional<BreakpointKey> Conditions::judge(VcpuId vcpu, VirtualAddress address,
                                               const BreakpointTable& table, const CurrentThread& current,
                                               const Counts& counts) {
    std::optional<BreakpointKey> stops;
    const bool is_filtered = filtered(address, current);
    PrintingContext context{machine_, vcpu, current, variables_,
                            [this](std::string_view text) { print(text); }};
    for (const BreakpointKey& key : table.client_breakpoints_at(address)) {
        if (stops || is_filtered || !counts(key)) continue;
        const auto* const own = program(key);
        const Thread* owner = own != nullptr && key.process != kernel_pid ? current() : nullptr;
        context.use_numbers_of_32_bit(owner != nullptr && owner->task && machine_.is_32_bit(*owner->task));
        if (own == nullptr) {
            stops = key;
        } else if (holds(*own, context, address)) {
            if (own->commands.empty()) stops = key;
            run(*own, context, address);
        }
    }
    if (!stops) ++passed_[address];
    return stops;
}

// gdb sends one condition for each of the user's breakpoints at that place.
bool Conditions::holds(const rsp::BreakpointProgram& program, rsp::AgentContext& context,
                       VirtualAddress address) {
    bool any = program.conditions.empty();
    for (const auto& condition : program.conditions) {
        if (any) break;
        const auto result = rsp::evaluate(condition, context);
        if (result.error) tell(address, "the condition", rsp::to_string(*result.error));
        any = result.error || result.value != 0;
    }
    return any;
}

void Conditions::run(const rsp::BreakpointProgram& program, rsp::AgentContext& context,
                     VirtualAddress address) {
    for (const auto& command : program.commands) {
        const auto result = rsp::evaluate(command, context);
        if (!result.error) continue;
        tell(address, "a command", rsp::to_string(*result.error));
        return;
    }
}

void Conditions::tell(VirtualAddress address, std::string_view what, std::string_view why) {
    print("exogdb: " + std::string{what} + " of the breakpoint at " + hex(address) + ": " + std::string{why} +
          "\n");
}

void Conditions::print(std::string_view text) {
    if (output_.size() + text.size() > most_output) {
        lost_ += text.size();
    } else {
        output_ += text;
    }
}

std::string Conditions::take_output() {
    std::string output = std::exchange(output_, {});
    if (lost_ != 0) output += "exogdb: " + std::to_string(lost_) + " bytes of output were lost here\n";
    lost_ = 0;
    return output;
}

}  // namespace exo::stub
