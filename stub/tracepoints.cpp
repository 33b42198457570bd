#include "stub/tracepoints.h"

#include <algorithm>
#include <chrono>

#include "rsp/hex.h"
#include "stub/trace_collector.h"

namespace exo::stub {
namespace {

constexpr std::size_t most_actions = 1024;

std::uint64_t microseconds_now() {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                          std::chrono::system_clock::now().time_since_epoch())
                                          .count());
}

std::string error_reason(std::string_view what, std::uint64_t tracepoint) {
    std::string reason = "terror:" + rsp::to_hex(what) + ":";
    rsp::append_hex_number(reason, tracepoint);
    return reason;
}

tl::unexpected<Error> no_such_tracepoint(std::uint64_t number, VirtualAddress address) {
    return fail(Errc::not_found, "no tracepoint " + std::to_string(number) + " at " + hex(address));
}

}  // namespace

void Tracepoints::clear() {
    stop("tnotrun:0");
    tracepoints_.clear();
    variables_.clear();
    read_only_.clear();
    buffer_.clear();
    status_ = {};
}

void Tracepoints::forget() {
    inserted_.clear();
    status_.running = false;
    clear();
    buffer_ = {};
}

Result<void> Tracepoints::define(rsp::DefineTracepoint request) {
    if (status_.running) return fail(Errc::busy, "a trace runs");
    const Id id{request.number, VirtualAddress{request.address}};
    if (request.head) {
        if (tracepoints_.size() >= most) return fail(Errc::no_free_slot, "too many tracepoints");
        tracepoints_[id] = {.head = *std::move(request.head)};
        return {};
    }
    const auto it = tracepoints_.find(id);
    if (it == tracepoints_.end()) return no_such_tracepoint(request.number, id.second);
    auto& actions = it->second.actions;
    if (actions.size() + request.actions.size() > most_actions)
        return fail(Errc::no_free_slot, "too many actions of a tracepoint");
    std::ranges::move(request.actions, std::back_inserter(actions));
    return {};
}

Result<void> Tracepoints::add_source(const rsp::TracepointSource& request) {
    const auto it = tracepoints_.find({request.number, VirtualAddress{request.address}});
    if (it == tracepoints_.end()) return no_such_tracepoint(request.number, VirtualAddress{request.address});
    if (it->second.sources.size() >= most_actions) return fail(Errc::no_free_slot, "too much source text");
    it->second.sources.push_back(request.text);
    return {};
}

Result<void> Tracepoints::enable(const rsp::TracepointId& request, bool enabled) {
    const auto it = tracepoints_.find({request.number, VirtualAddress{request.address}});
    if (it == tracepoints_.end()) return no_such_tracepoint(request.number, VirtualAddress{request.address});
    it->second.head.enabled = enabled;
    return {};
}

Result<void> Tracepoints::define_variable(const rsp::DefineTraceVariable& request) {
    if (variables_.size() >= most_variables)
        return fail(Errc::no_free_slot, "too many trace state variables");
    variables_[request.number] = {request.value, request.builtin, request.name, request.value};
    return {};
}

// Also of those that are disabled: they may be enabled while the trace runs.
Result<void> Tracepoints::start() {
    stop("tnotrun:0");
    buffer_.clear();
    for (auto& [number, variable] : variables_) variable.value = variable.initial;
    for (auto& [id, tracepoint] : tracepoints_) {
        tracepoint.hits = tracepoint.usage = 0;
        if (auto inserted = breakpoints_.insert_internal(id.second); !inserted) {
            stop("tnotrun:0");
            return inserted;
        }
        inserted_.push_back(id.second);
    }
    status_.running = true;
    status_.started = microseconds_now();
    status_.stopped = 0;
    return {};
}

void Tracepoints::stop(std::string reason) {
    for (const VirtualAddress address : inserted_) breakpoints_.remove_internal(address);
    inserted_.clear();
    status_.running = false;
    status_.reason = std::move(reason);
    status_.stopped = microseconds_now();
}

Result<bool> Tracepoints::hit(VcpuId vcpu, VirtualAddress address, const CurrentThread& current) {
    if (!collect_at(address)) return false;
    for (auto& [id, tracepoint] : tracepoints_) {
        if (id.second != address || !tracepoint.head.enabled || !status_.running) continue;
        CHECK_OK(collect(id, tracepoint, vcpu, current));
    }
    // A breakpoint that is wanted no more must not be met again.
    if (!status_.running) CHECK_OK(breakpoints_.settle());
    return true;
}

Result<void> Tracepoints::collect(const Id& id, Tracepoint& tracepoint, VcpuId vcpu,
                                  const CurrentThread& current) {
    TraceFrame frame{.tracepoint = id.first, .pc = id.second};
    TraceCollector collector{machine_, vcpu, current, variables_, frame, buffer_.size()};
    if (tracepoint.head.condition) {
        const auto holds = rsp::evaluate(*tracepoint.head.condition, collector);
        if (holds.error) {
            stop(error_reason(rsp::to_string(*holds.error), id.first));
            return {};
        }
        if (holds.value == 0) return {};
    }
    ++tracepoint.hits;
    for (const auto& action : tracepoint.actions) {
        const auto error = collector.run(action);
        if (!error) continue;
        stop(error->fault == rsp::AgentError::Fault::buffer_full
                 ? "tfull:0"
                 : error_reason(rsp::to_string(*error), id.first));
        return {};
    }
    const std::size_t size = frame.size();
    if (!buffer_.add(std::move(frame))) {
        stop("tfull:0");
        return {};
    }
    tracepoint.usage += size;
    if (tracepoint.hits == tracepoint.head.pass_count) {
        std::string reason = "tpasscount:";
        rsp::append_hex_number(reason, id.first);
        stop(std::move(reason));
    }
    return {};
}

}  // namespace exo::stub
