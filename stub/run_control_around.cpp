// Resuming by vCPU, for non-stop mode: all run but those that are held.
#include <utility>

#include "stub/run_control.h"

namespace exo::stub {

Result<void> RunControl::resume_around(const rsp::Resume& request, std::set<VcpuId> held,
                                       std::optional<Thread> stepping) {
    end();
    request_ = request;
    around_ = Around{.held = std::move(held), .stepping = std::move(stepping)};
    os_generation_ = machine_.os_generation();
    auto started = start();
    if (!started) end();
    return started;
}

Result<void> RunControl::plan_around() {
    run_all_but_held();
    if (!around_->stepping) return {};
    const Thread& thread = *around_->stepping;
    if (thread.vcpu) actions_.at(*thread.vcpu) = VcpuAction::step;
    const auto* action = action_for(thread);
    if (action == nullptr) {
        return fail(Errc::no_such_thread, "thread " + std::to_string(thread.tid) + " has no action");
    }
    return begin_step(thread, kernel_pid, *action);
}

void RunControl::run_all_but_held() {
    actions_.assign(machine_.target().vcpu_count(), VcpuAction::run);
    told_at_.clear();
    if (!around_) return;
    for (const VcpuId vcpu : around_->held) actions_.at(vcpu) = VcpuAction::hold;
}

}  // namespace exo::stub
