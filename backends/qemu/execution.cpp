#include "backends/qemu/execution.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "backends/arch/x86_64.h"
#include "backends/qemu/recover.h"
#include "rsp/hex.h"

namespace exo::qemu {
namespace {

using namespace std::chrono_literals;

// A stop that QEMU's stub does not tell of: a resume that QEMU did not carry out, a pause by somebody else
// that came first. Then QEMU is asked by its monitor.
constexpr auto look_after_resume = 500ms;
constexpr auto look_after_interrupt = 1s;
constexpr auto look_again = 2s;
constexpr auto stop_limit = 10s;
// How long QEMU, told by libvirt, may take to end after the guest has powered off.
constexpr auto shutdown_limit = 3s;

// Each stop is an event of a few hundred bytes that QEMU's monitor has for us.
constexpr std::uint64_t stops_between_looks = 256;

// include/gdb/signals.def, as QEMU's gdb_vm_state_change() uses it.
constexpr auto signal_shutdown = static_cast<rsp::Signal>(3);

const Error gone_error{Errc::target_gone, "the guest is gone: QEMU has ended"};

// States in which QEMU must not be told to stop or go on.
bool in_migration(const std::string& state) {
    return state == "inmigrate" || state == "finish-migrate" || state == "postmigrate" || state == "colo" ||
           state == "save-vm" || state == "restore-vm";
}

}  // namespace

QemuExecution::QemuExecution(Monitor& monitor, const Process& process, GuestMemory& memory,
                             JournalEntry identity, bool kvm)
    : monitor_(monitor),
      process_(process),
      memory_(memory),
      journal_(std::move(identity)),
      kvm_(kvm),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    journal_.qemu_pid = process.pid();
    journal_.qemu_start = process.start_time();
}

QemuExecution::~QemuExecution() { static_cast<void>(detach()); }

Result<void> QemuExecution::write_physical(PhysicalAddress address, ConstBytes in) {
    if (running_)
        return fail(Errc::busy, "memory at " + hex(address) + " cannot be written while the guest runs");
    return client_->write_physical(address, in);
}

Result<StopEvent> QemuExecution::attach() {
    if (!process_.alive()) return fail(gone_error);
    if (client_) {
        if (running_) CHECK_OK(stop_now());
        return StopEvent{};
    }
    CHECK_OK(recover_stale(monitor_, process_));
    const auto state = TRY(query_run_state(monitor_));
    if (in_migration(state.name))
        return fail(Errc::busy, "the guest is being migrated or saved (" + state.name + ")");
    journal_.was_running = state.running;
    journal_.owner_pid = ::getpid();
    journal_.owner_start = start_time_of(::getpid()).value_or(0);
    if (auto opened = open_stub(); !opened) {
        static_cast<void>(give_back());
        return fail(std::move(opened).error());
    }
    running_ = false;
    ++generation_;
    inserted_.clear();
    patches_.clear();
    actions_.assign(client_->threads().size(), VcpuAction::hold);
    stepping_left_.assign(client_->threads().size(), false);
    memory_.write_through(this);
    memory_.guest_ran();
    return StopEvent{};
}

Result<void> QemuExecution::open_stub() {
    journal_.user_stub.clear();
    journal_.patches.clear();
    journal_.stub_path.clear();
    journal_.stub_directory.clear();
    const auto chardevs = TRY(query_chardevs(monitor_));
    if (auto client = client_of_stub(chardevs)) return fail(*std::move(client));
    if (chardevs.stub) {
        journal_.user_stub = chardevs.stub->device;
        CHECK_OK(write_journal(journal_));
        CHECK_OK(stop_stub(monitor_, {}, {}));
    }
    CHECK_OK(start_stub(monitor_, process_, chardevs, [this](const StubPlace& place) {
        journal_.stub_path = place.path;
        journal_.stub_directory = place.directory;
        return write_journal(journal_);
    }));
    client_ = TRY(StubClient::connect(journal_.stub_path, process_));
    return {};
}

// The stub closed, the guest running if it ran, the user's own stub open again. Goes on after an error, since
// each part matters by itself; the first one is returned.
Result<void> QemuExecution::give_back() {
    Result<void> result;
    const auto keep = [&](Result<void> step) {
        if (!step && result) result = std::move(step);
    };
    memory_.write_through(nullptr);
    client_.reset();
    running_ = false;
    ++generation_;
    if (!process_.alive()) {
        remove_journal(journal_.qemu_pid);
        return fail(gone_error);
    }
    if (!journal_.stub_path.empty()) {
        // The stub has let it run; this is for the case that the stub could not be spoken to.
        const auto state = query_run_state(monitor_);
        if (state && journal_.was_running && !state->running && state->name != "shutdown") {
            auto answer = monitor_.execute("cont");
            if (!answer) keep(fail(std::move(answer).error()));
        }
        keep(stop_stub(monitor_, journal_.stub_path, journal_.stub_directory));
    }
    if (result) keep(restore_user_stub(monitor_, journal_.user_stub));
    // The journal stays while there is something left to undo.
    if (result) remove_journal(journal_.qemu_pid);
    return result;
}

Result<void> QemuExecution::detach() {
    if (!client_) return {};
    Result<void> result;
    if (process_.alive()) {
        if (running_) result = stop_now();
        if (result) result = remove_all();
        if (journal_.was_running && process_.alive() && !running_) {
            auto detached = client_->detach();
            if (result) result = std::move(detached);
        } else if (process_.alive() && !running_) {
            auto dropped = client_->drop_breakpoints();
            if (dropped) dropped = client_->leave_physical_mode();
            if (result) result = std::move(dropped);
        }
    }
    auto given_back = give_back();
    inserted_.clear();
    patches_.clear();
    return given_back ? result : given_back;
}

Result<void> QemuExecution::stop_now() {
    const auto deadline = Clock::now() + stop_limit;
    interrupt();
    while (running_) {
        const auto left = std::chrono::milliseconds{milliseconds_until(deadline)};
        if (left.count() == 0) return fail(Errc::timed_out, "QEMU does not stop the guest");
        CHECK_OK(wait_for_stop(left));
    }
    if (!process_.alive()) return fail(gone_error);
    return {};
}

Result<void> QemuExecution::resume(std::span<const VcpuAction> actions) {
    if (!process_.alive()) return fail(gone_error);
    if (!client_ || running_) return fail(Errc::bad_request, "resume of a guest that is not stopped by us");
    if (actions.size() > client_->threads().size())
        return fail(Errc::bad_request, "resume: " + std::to_string(actions.size()) + " actions for " +
                                           std::to_string(client_->threads().size()) + " vCPUs");
    if (std::ranges::all_of(actions, [](VcpuAction action) { return action == VcpuAction::hold; }))
        return fail(Errc::bad_request, "resume: no vCPU is to run");
    actions_.assign(actions.begin(), actions.end());
    actions_.resize(client_->threads().size(), VcpuAction::run);  // vCPUs that were plugged in since
    eventfd_t forgotten = 0;
    ::eventfd_read(wake_.get(), &forgotten);
    shutting_down_.reset();
    return send_resume();
}

Result<void> QemuExecution::send_resume() {
    std::string payload = "vCont";
    if (std::ranges::all_of(actions_, [](VcpuAction action) { return action == VcpuAction::run; })) {
        payload += ";c";
    } else {
        for (std::size_t i = 0; i < actions_.size(); ++i) {
            if (actions_[i] == VcpuAction::hold) continue;
            payload += actions_[i] == VcpuAction::step ? ";s:" : ";c:";
            rsp::append_thread_id(payload, client_->threads()[i], false);
        }
    }
    memory_.guest_ran();
    ++generation_;
    if (++resumes_ % stops_between_looks == 0) monitor_.drop_events();
    CHECK_OK(client_->resume(payload));
    running_ = true;
    look_at_ = Clock::now() + look_after_resume;
    return {};
}

StopEvent QemuExecution::stopped(StopEvent event) {
    running_ = false;
    ++generation_;
    look_at_.reset();
    shutting_down_.reset();
    return event;
}

Result<std::optional<StopEvent>> QemuExecution::wait_for_stop(std::chrono::milliseconds limit) {
    if (!client_) return fail(Errc::bad_request, "waiting for a guest that is not attached");
    if (!running_) {
        if (!process_.alive()) return fail(gone_error);
        return fail(Errc::bad_request, "waiting for a guest that is stopped");
    }
    const auto deadline = Clock::now() + limit;
    for (;;) {
        if (auto event = TRY(take_stop())) return event;
        const auto now = Clock::now();
        if (look_at_ && now >= *look_at_) {
            if (auto event = TRY(look_at_run_state())) return event;
        }
        if (shutting_down_ && now >= *shutting_down_)  // powered off, and QEMU stays (-no-shutdown)
            return stopped({.cause = StopEvent::Cause::interrupt});
        if (now >= deadline) return std::nullopt;
        wait_for_event(deadline);
    }
}

void QemuExecution::wait_for_event(Clock::time_point deadline) {
    if (look_at_) deadline = std::min(deadline, *look_at_);
    if (shutting_down_) deadline = std::min(deadline, *shutting_down_);
    auto fds = std::to_array<pollfd>(
        {{client_->socket(), POLLIN, 0}, {wake_.get(), POLLIN, 0}, {process_.pidfd(), POLLIN, 0}});
    if (::poll(fds.data(), fds.size(), milliseconds_until(deadline)) <= 0) return;
    if (fds[1].revents == 0) return;
    eventfd_t count = 0;
    if (::eventfd_read(wake_.get(), &count) != 0) return;
    // A failure shows as the end of the stream.
    static_cast<void>(client_->send_interrupt());
    look_at_ = Clock::now() + look_after_interrupt;
}

void QemuExecution::interrupt() noexcept { ::eventfd_write(wake_.get(), 1); }

Result<std::optional<StopEvent>> QemuExecution::take_stop() {
    const auto stop = client_->poll_stop();
    if (!stop) {
        if (stop.error().code == Errc::target_gone || !process_.alive())
            return stopped({.cause = StopEvent::Cause::exited});
        running_ = false;  // it was refused
        return fail(stop.error());
    }
    if (*stop) return translate(**stop);
    if (!process_.alive()) return stopped({.cause = StopEvent::Cause::exited});
    return std::nullopt;
}

Result<std::optional<StopEvent>> QemuExecution::translate(const rsp::StopReply& stop) {
    using Cause = StopEvent::Cause;
    using Reason = rsp::StopReply::Reason;
    if (stop.kind == rsp::StopReply::Kind::exited) return stopped({.cause = Cause::exited});
    const auto vcpu = client_->vcpu_of(stop.thread).value_or(0);
    if (stop.signal == signal_shutdown) {
        shutting_down_ = Clock::now() + shutdown_limit;
        look_at_.reset();
        return std::nullopt;
    }
    const bool stale = TRY(is_stale_step(vcpu, stop.signal));
    for (std::size_t i = 0; i < actions_.size(); ++i)
        if (actions_[i] == VcpuAction::step) stepping_left_[i] = true;
    stepping_left_[vcpu] = false;
    // Paused by interrupt(), by `virsh suspend`, by QEMU itself after an I/O error or a panic.
    if (stop.signal != rsp::Signal::trap) return stopped({.cause = Cause::interrupt, .vcpu = vcpu});
    const VirtualAddress address{stop.watch_address};
    if (stop.reason == Reason::watch) return stopped({Cause::write_watch, vcpu, address});
    if (stop.reason == Reason::rwatch) return stopped({Cause::read_watch, vcpu, address});
    if (stop.reason == Reason::awatch) return stopped({Cause::access_watch, vcpu, address});
    if (stale) {
        CHECK_OK(send_resume());
        return std::nullopt;
    }
    const bool stepped = actions_[vcpu] == VcpuAction::step;
    return stopped({.cause = stepped ? Cause::step : Cause::breakpoint, .vcpu = vcpu});
}

// QEMU clears the single-step flag of the vCPU that stops, and of no other (gdbstub, gdb_vm_state_change()):
// one that was to step when another one stopped first makes a step at its next run, which nobody asked for.
Result<bool> QemuExecution::is_stale_step(VcpuId vcpu, rsp::Signal signal) {
    if (signal != rsp::Signal::trap || !stepping_left_[vcpu] || actions_[vcpu] == VcpuAction::step)
        return false;
    const auto registers = TRY(client_->read_registers(vcpu, x86::layout()));
    const auto pc = registers.get(x86::rip);
    return std::ranges::none_of(inserted_, [&](const Key& key) {
        const auto& [kind, address, length] = key;
        return (kind == BreakpointKind::software || kind == BreakpointKind::hardware) && address == pc;
    });
}

Result<std::optional<StopEvent>> QemuExecution::look_at_run_state() {
    const auto state = query_run_state(monitor_);
    if (!process_.alive()) return stopped({.cause = StopEvent::Cause::exited});
    look_at_.reset();
    if (!state) {  // libvirtd is away; run control does not need it
        look_at_ = Clock::now() + look_again;
        return std::nullopt;
    }
    if (state->running) return std::nullopt;
    if (auto event = TRY(take_stop())) return event;
    if (shutting_down_) return std::nullopt;
    return stopped({.cause = StopEvent::Cause::interrupt});
}

}  // namespace exo::qemu
