// Run control of a domain by pausing it: all vCPUs or none. It is enough to stop a guest, to look at it and
// to let it go on; steps and breakpoints need more of Xen.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "backends/api/target.h"
#include "backends/host/file_descriptor.h"
#include "backends/xen/domain.h"
#include "backends/xen/journal.h"
#include "backends/xen/memory.h"
#include "backends/xen/pausing.h"

namespace exo::xen {

class XenExecution final : public Execution {
public:
    XenExecution(std::unique_ptr<Pausing> domain, ForeignMemory& memory);
    XenExecution(const Domain& domain, ForeignMemory& memory, JournalEntry journal)
        : XenExecution(pausing(domain, std::move(journal)), memory) {}
    ~XenExecution() override;

    Result<StopEvent> attach() override;
    Result<void> detach() override;
    Result<void> resume(std::span<const VcpuAction> actions) override;
    Result<std::optional<StopEvent>> wait_for_stop(std::chrono::milliseconds limit) override;
    void interrupt() noexcept override;

    [[nodiscard]] bool attached() const { return attached_; }
    [[nodiscard]] bool running() const { return running_; }
    // One line, where more than ours has stopped it; else empty.
    [[nodiscard]] const std::string& why_it_stands() const { return why_; }

private:
    using Clock = std::chrono::steady_clock;

    void explain(const xc_dominfo_t& info);
    Result<void> hold();
    Result<void> let_go();
    Result<std::optional<StopEvent>> look();
    bool take_interrupt();

    std::unique_ptr<Pausing> domain_;
    ForeignMemory& memory_;
    FileDescriptor wake_;
    bool attached_ = false;
    bool running_ = false;
    std::string why_;
    StandsByOthers by_others_;
};

}  // namespace exo::xen
