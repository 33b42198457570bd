// Conditions and commands of breakpoints, evaluated here: at a hit that is nobody's the guest goes on, and no
// client hears of it. Beside what the client sends with its breakpoints (Z0, Z1) there are filters by thread,
// which stay when gdb takes its breakpoints out at a stop and puts them back.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>

#include "rsp/breakpoint_program.h"
#include "stub/breakpoint_table.h"
#include "stub/live_context.h"

namespace exo::stub {

// Which threads count at an address.
struct ThreadFilter {
    enum class By : std::uint8_t { tid, pid, comm };
    By by = By::tid;
    std::int64_t number = 0;  // of tid (the thread's id), pid (the guest's)
    std::string comm;
    [[nodiscard]] bool takes(const Thread& thread) const;
};
std::string to_string(const ThreadFilter& filter);

class Conditions {
public:
    Conditions(Machine& machine, TraceVariables& variables) : machine_(machine), variables_(variables) {}

    // In place of what was there for this breakpoint.
    void set(const BreakpointKey& key, rsp::BreakpointProgram program);
    void remove(const BreakpointKey& key) { programs_.erase(key); }
    void set_filter(VirtualAddress address, ThreadFilter filter) { filters_[address] = std::move(filter); }
    bool remove_filter(VirtualAddress address) { return filters_.erase(address) != 0; }
    void forget();

    // Whether a hit there need not be a stop.
    [[nodiscard]] bool decide_at(VirtualAddress address) const;
    // A vCPU has come to `address`: as a hit of which of the client's breakpoints it is to stop. Nothing: it
    // goes on. What cannot be evaluated stops, and the client is told why.
    // `counts`: which of them do, of those of several processes at that address.
    using Counts = std::function<bool(const BreakpointKey&)>;
    [[nodiscard]] std::optional<BreakpointKey> judge(
        VcpuId vcpu, VirtualAddress address, const BreakpointTable& table, const CurrentThread& current,
        const Counts& counts = [](const auto&) { return true; });

    // What commands printed, and what the client is to be told, since the last call.
    [[nodiscard]] std::string take_output();
    [[nodiscard]] bool has_output() const { return !output_.empty() || lost_ != 0; }

    [[nodiscard]] const std::map<VirtualAddress, ThreadFilter>& filters() const { return filters_; }
    // How often the guest went on at an address, which no client can count.
    [[nodiscard]] const std::map<VirtualAddress, std::uint64_t>& passed() const { return passed_; }
    [[nodiscard]] const rsp::BreakpointProgram* program(const BreakpointKey& key) const;

private:
    bool filtered(VirtualAddress address, const CurrentThread& current);
    bool holds(const rsp::BreakpointProgram& program, rsp::AgentContext& context, VirtualAddress address);
    void run(const rsp::BreakpointProgram& program, rsp::AgentContext& context, VirtualAddress address);
    void print(std::string_view text);
    void tell(VirtualAddress address, std::string_view what, std::string_view why);

    Machine& machine_;
    TraceVariables& variables_;
    std::map<BreakpointKey, rsp::BreakpointProgram> programs_;
    std::map<VirtualAddress, ThreadFilter> filters_;
    std::map<VirtualAddress, std::uint64_t> passed_;
    std::string output_;
    std::uint64_t lost_ = 0;  // bytes that did not fit
};

}  // namespace exo::stub
