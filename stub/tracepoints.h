// Tracepoints: at a hit the guest stands for as long as it takes to collect what was asked for, and goes on.
// All of it is a client's, and ends with it: tracing without a client is not offered (DisconnectedTracing).
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "rsp/trace_requests.h"
#include "stub/breakpoint_table.h"
#include "stub/live_context.h"
#include "stub/trace_buffer.h"
#include "stub/trace_variables.h"

namespace exo::stub {

struct Tracepoint {
    rsp::DefineTracepoint::Head head;
    std::vector<rsp::TraceAction> actions;
    std::vector<std::string> sources;  // QTDPsrc, for uploads
    std::uint64_t hits = 0;
    std::uint64_t usage = 0;  // bytes of the buffer that its frames took
};

class Tracepoints {
public:
    using Id = std::pair<std::uint64_t, VirtualAddress>;  // one of the user's may have several addresses
    static constexpr std::size_t most = 4096;
    static constexpr std::size_t most_variables = 4096;

    // Why no trace runs, and what else there is to say of it (GDB manual, qTStatus).
    struct Status {
        bool running = false;
        std::string reason = "tnotrun:0";
        std::uint64_t started = 0;  // microseconds since 1970
        std::uint64_t stopped = 0;
        std::string user;
        std::string notes;
    };

    Tracepoints(Machine& machine, BreakpointTable& breakpoints, TraceVariables& variables)
        : machine_(machine), breakpoints_(breakpoints), variables_(variables) {}

    void clear();  // QTinit
    Result<void> define(rsp::DefineTracepoint request);
    Result<void> add_source(const rsp::TracepointSource& request);
    Result<void> enable(const rsp::TracepointId& request, bool enabled);
    Result<void> define_variable(const rsp::DefineTraceVariable& request);
    Result<void> start();
    void stop(std::string reason);
    // The machine has no breakpoints any more, the client is gone.
    void forget();

    // A vCPU has come to `address`. True: tracepoints were there, and have collected.
    Result<bool> hit(VcpuId vcpu, VirtualAddress address, const CurrentThread& current);

    [[nodiscard]] bool collect_at(VirtualAddress address) const {
        return status_.running && std::ranges::find(inserted_, address) != inserted_.end();
    }
    [[nodiscard]] const std::map<Id, Tracepoint>& all() const { return tracepoints_; }
    [[nodiscard]] TraceVariables& variables() { return variables_; }
    [[nodiscard]] TraceBuffer& buffer() { return buffer_; }
    [[nodiscard]] const TraceBuffer& buffer() const { return buffer_; }
    [[nodiscard]] Status& status() { return status_; }
    [[nodiscard]] std::vector<rsp::ReadOnlyRanges::Range>& read_only() { return read_only_; }

private:
    Result<void> collect(const Id& id, Tracepoint& tracepoint, VcpuId vcpu, const CurrentThread& current);

    Machine& machine_;
    BreakpointTable& breakpoints_;
    std::map<Id, Tracepoint> tracepoints_;
    TraceVariables& variables_;
    std::vector<VirtualAddress> inserted_;  // while a trace runs
    std::vector<rsp::ReadOnlyRanges::Range> read_only_;
    TraceBuffer buffer_;
    Status status_;
};

}  // namespace exo::stub
