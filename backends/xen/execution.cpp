#include "backends/xen/execution.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <utility>

namespace exo::xen {
namespace {

using namespace std::chrono_literals;

// Xen tells nobody that a domain was paused, and of its end only whoever has the one VIRQ_DOM_EXC: xenstored.
constexpr auto look_interval = 100ms;

}  // namespace

XenExecution::XenExecution(std::unique_ptr<Pausing> domain, ForeignMemory& memory)
    : domain_(std::move(domain)), memory_(memory), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

// What cannot be undone now stays in the journal.
XenExecution::~XenExecution() { static_cast<void>(detach()); }

void XenExecution::interrupt() noexcept { ::eventfd_write(wake_.get(), 1); }

bool XenExecution::take_interrupt() {
    eventfd_t count = 0;
    return ::eventfd_read(wake_.get(), &count) == 0;
}

Result<StopEvent> XenExecution::attach() {
    if (attached_) return StopEvent{};
    CHECK_OK(domain_->begin());
    const auto info = TRY(domain_->info());
    switch (condition_of(info)) {
        case Condition::gone: return fail(Errc::target_gone, domain_->text() + " is being destroyed");
        case Condition::suspended:
            return fail(Errc::busy,
                        domain_->text() + " is being saved or migrated; try again when that is over");
        case Condition::crashed:
        case Condition::none: break;
    }
    explain(info);
    auto held = hold();
    if (!held) {
        domain_->end();
        return fail(std::move(held).error());
    }
    attached_ = true;
    take_interrupt();
    return StopEvent{};
}

void XenExecution::explain(const xc_dominfo_t& info) {
    why_.clear();
    if (condition_of(info) == Condition::crashed)
        why_ = "the guest has crashed, and the toolstack keeps it as it was then; it cannot go on";
    else if (info.paused != 0)
        why_ = "the toolstack has paused it; `xl unpause " + domain_->name() + "` lets it go on";
}

// The journal says so before, and after let_go(): see JournalEntry::holds.
Result<void> XenExecution::hold() {
    CHECK_OK(domain_->write_down(true));
    CHECK_OK(domain_->pause());
    running_ = false;
    by_others_.forget();
    memory_.stands(TRY(domain_->info()).nr_pages);
    return {};
}

Result<void> XenExecution::let_go() {
    memory_.runs();
    CHECK_OK(domain_->unpause());
    running_ = true;
    return domain_->write_down(false);
}

Result<void> XenExecution::detach() {
    if (!attached_) return {};
    auto given = running_ ? Result<void>{} : let_go();
    if (!given && given.error().code != Errc::target_gone) return given;
    attached_ = running_ = false;
    memory_.runs();
    memory_.release();
    domain_->end();
    return {};
}

Result<void> XenExecution::resume(std::span<const VcpuAction> actions) {
    if (!attached_ || running_) return fail(Errc::busy, "the guest runs already");
    if (std::ranges::find(actions, VcpuAction::step) != actions.end())
        return fail(Errc::unsupported, "Xen lets no vCPU of this guest step");
    if (std::ranges::find(actions, VcpuAction::hold) != actions.end())
        return fail(Errc::unsupported, "Xen pauses all vCPUs of a domain or none");
    take_interrupt();
    auto gone = let_go();
    // Told as its end by wait_for_stop().
    if (!gone && gone.error().code == Errc::target_gone) {
        running_ = true;
        return {};
    }
    return gone;
}

// Whether it has stopped, or ended, by itself.
Result<std::optional<StopEvent>> XenExecution::look() {
    const auto info = domain_->info();
    if (!info && info.error().code != Errc::target_gone) return fail(info.error());
    if (!info || condition_of(*info) == Condition::gone) {
        running_ = attached_ = false;
        memory_.release();  // what is mapped keeps a domain that has been destroyed
        domain_->end();
        return StopEvent{.cause = StopEvent::Cause::exited};
    }
    if (!by_others_.lasts(*info, Clock::now())) return std::optional<StopEvent>{};
    explain(*info);
    CHECK_OK(hold());
    return StopEvent{.cause = StopEvent::Cause::interrupt};
}

Result<std::optional<StopEvent>> XenExecution::wait_for_stop(std::chrono::milliseconds limit) {
    if (!attached_ || !running_) return std::optional<StopEvent>{};
    const auto deadline = Clock::now() + limit;
    for (;;) {
        if (take_interrupt()) {
            why_.clear();
            auto held = hold();
            if (held) return StopEvent{.cause = StopEvent::Cause::interrupt};
            if (held.error().code != Errc::target_gone) return fail(std::move(held).error());
        }
        if (auto event = TRY(look())) return event;
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
        if (left <= 0ms) return std::optional<StopEvent>{};
        pollfd wake{wake_.get(), POLLIN, 0};
        ::poll(&wake, 1, static_cast<int>(std::min<std::chrono::milliseconds>(left, look_interval).count()));
    }
}

}  // namespace exo::xen
