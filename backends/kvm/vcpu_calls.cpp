// System calls that a vCPU's thread makes for us: by its mailbox, or under ptrace.
#include <asm/unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include "backends/kvm/registers.h"
#include "backends/kvm/vcpu.h"

namespace exo::kvm {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t away_mask = ~std::uint64_t{0};  // all signals are blocked
// After which a call that is not done is asked whether its thread still is.
constexpr auto call_patience = 100ms;

// One MSR, as KVM_GET_MSRS and KVM_SET_MSRS take it: struct kvm_msrs with its one entry.
struct OneMsr {
    std::uint32_t count = 1;
    std::uint32_t padding = 0;
    kvm_msr_entry entry{};
};

template <class T>
T copy_from(const std::byte* place) {
    T value{};
    std::memcpy(&value, place, sizeof value);
    return value;
}

}  // namespace

void Vcpu::use(const Springboard* board, std::byte* data) {
    board_ = board;
    board_data_ = data;
    if (board == nullptr) run_pages_ = {};
}

Mailbox& Vcpu::mailbox() const {
    return *reinterpret_cast<Mailbox*>(board_data_ + Springboard::mailbox_offset(index_));
}

Result<kvm_run> Vcpu::run_area() const {
    if (!run_pages_.present()) return memory_->get<kvm_run>(handle_.run);
    return copy_from<kvm_run>(run_pages_.data());
}

// --- the two ways

Result<void> Vcpu::keep_record(bool mask_saved) {
    const ThreadRecord record{.tid = static_cast<std::uint64_t>(thread_->tid()),
                              .mask_saved = mask_saved ? 1U : 0U,
                              .signal_mask = mask_,
                              .halted = halted_ ? 1U : 0U,
                              .home = home_};
    return put_record(record);
}

Result<void> Vcpu::put_record(const ThreadRecord& record) {
    if (board_data_ == nullptr) return memory_->put(board_->record(index_), record);
    std::memcpy(board_data_ + Springboard::record_offset(index_), &record, sizeof record);
    return {};
}

// Of a stopped thread.
Result<void> Vcpu::go_away() {
    if (place_ == Place::away && masked_) return thread_->set_signal_mask(away_mask);
    mask_ = TRY(thread_->signal_mask());
    CHECK_OK(keep_record(true));
    CHECK_OK(thread_->set_signal_mask(away_mask));
    masked_ = true;
    place_ = Place::away;
    return {};
}

Result<void> Vcpu::go_home() {
    CHECK_OK(unpark());
    if (place_ == Place::home) return thread_->set_registers(home_);
    if (masked_) CHECK_OK(thread_->set_signal_mask(mask_));
    masked_ = false;
    CHECK_OK(thread_->set_registers(home_));
    place_ = Place::home;
    return put_record({.halted = halted_ ? 1U : 0U});
}

Result<void> Vcpu::make_ready(bool for_steps) {
    if (board_data_ == nullptr || parked_) return {};
    const bool in_user = TRY(in_user_mode());
    if (!in_user && !for_steps) return {};
    CHECK_OK(park());
    if (!in_user) return {};
    const auto request = gs_request();
    exo::kvm::post(mailbox(), {&request, 1});  // without waiting for it
    asked_for_gs_ = true;
    return {};
}

Result<void> Vcpu::park() {
    if (parked_) return {};
    return tracer_->run([&]() -> Result<void> {
        CHECK_OK(go_away());
        mailbox().calls[0] = {};  // what was made before is not what it makes now (last_run())
        auto registers = home_;
        registers.rip = board_->teller();
        registers.orig_rax = no_system_call;
        registers.r12 = board_->mailbox(index_);
        registers.r13 = mailbox().done;
        CHECK_OK(thread_->set_registers(registers));
        CHECK_OK(thread_->resume(TracedThread::Resume::freely));
        parked_ = true;
        return {};
    });
}

// Stops it where it is: away.
Result<void> Vcpu::unpark() {
    if (!parked_) return {};
    CHECK_OK(finish_gs());
    return tracer_->run([&]() -> Result<void> {
        thread_->interrupt();
        if (!thread_->stopped() && thread_->wait().kind == ThreadStop::Kind::ended) return fail(vmm_gone());
        parked_ = false;
        return {};
    });
}

// The thread's next instruction is the springboard's system call.
Result<void> Vcpu::prepare_call(std::int64_t number, std::uint64_t a, std::uint64_t b, std::uint64_t c) {
    auto registers = home_;
    registers.rip = board_->code;
    registers.rax = static_cast<std::uint64_t>(number);
    registers.orig_rax = no_system_call;
    registers.rdi = a;
    registers.rsi = b;
    registers.rdx = c;
    return thread_->set_registers(registers);
}

Result<std::int64_t> Vcpu::call_traced(std::int64_t number, std::uint64_t a, std::uint64_t b,
                                       std::uint64_t c) {
    return tracer_->run([&]() -> Result<std::int64_t> {
        CHECK_OK(go_away());
        CHECK_OK(prepare_call(number, a, b, c));
        for (int stop = 0; stop < 2; ++stop)  // entry and exit
            if (!TRY(thread_->go_to_syscall())) return fail(vmm_gone());
        return static_cast<std::int64_t>(TRY(thread_->registers()).rax);
    });
}

// Of a parked thread. Whoever stops the VMM's threads meanwhile (SIGSTOP) does not stop this one.
Result<void> Vcpu::await() {
    while (!wait_until_done(mailbox(), Clock::now() + call_patience)) {
        const auto stop = thread_->poll();
        if (!stop) continue;
        if (stop->kind == ThreadStop::Kind::ended) return fail(vmm_gone());
        CHECK_OK(tracer_->run([&] { return thread_->resume(TracedThread::Resume::freely); }));
    }
    return {};
}

Result<std::int64_t> Vcpu::call(std::int64_t number, std::uint64_t a, std::uint64_t b, std::uint64_t c) {
    if (board_data_ == nullptr) return call_traced(number, a, b, c);
    CHECK_OK(park());
    CHECK_OK(finish_gs());
    const CallRequest request{.number = number, .a = a, .b = b, .c = c};
    exo::kvm::post(mailbox(), {&request, 1});
    CHECK_OK(await());
    return mailbox().calls[0].result;
}

// --- what is called

Result<std::int64_t> Vcpu::ioctl(std::uint64_t request, std::span<const std::byte> in,
                                 std::span<std::byte> out) {
    CHECK_OK(finish_gs());  // it has the same place for its arguments
    const auto place = board_->arguments(index_);
    std::byte* const here = board_data_ == nullptr ? nullptr : board_data_ + board_->argument_offset(index_);
    if (here != nullptr && !in.empty())
        std::memcpy(here, in.data(), in.size());
    else if (!in.empty())
        CHECK_OK(memory_->write(place, in));
    const auto result = TRY(call(__NR_ioctl, static_cast<std::uint64_t>(handle_.fd), request, place));
    if (result < 0 || out.empty()) return result;
    if (here != nullptr)
        std::memcpy(out.data(), here, out.size());
    else
        CHECK_OK(memory_->read(place, out));
    return result;
}

Result<void> Vcpu::set_immediate_exit(bool value) {
    immediate_exit_ = value;
    return put_run<std::uint8_t>(offsetof(kvm_run, immediate_exit), value ? 1 : 0);
}

Result<void> Vcpu::refresh() {
    CHECK_OK(set_immediate_exit(true));
    const auto result = TRY(call(__NR_ioctl, static_cast<std::uint64_t>(handle_.fd), KVM_RUN));
    CHECK_OK(set_immediate_exit(false));
    if (result == -EINTR || result == -EAGAIN) return {};
    return fail(Errc::backend, "vCPU " + std::to_string(handle_.id) + ": KVM_RUN answers " +
                                   (result < 0 ? std::strerror(static_cast<int>(-result)) : "with an exit"));
}

Result<void> Vcpu::write_sync_registers(const kvm_sync_regs& values, std::uint64_t fields) {
    CHECK_OK(put_run(offsetof(kvm_run, s), values));
    CHECK_OK(put_run(offsetof(kvm_run, kvm_dirty_regs), fields));
    return refresh();
}

// kvm_sync_regs holds the registers of the last exit: all of them are written.
Result<void> Vcpu::move_to(std::uint64_t rip) {
    constexpr auto regs = offsetof(kvm_run, s) + offsetof(kvm_sync_regs, regs);
    CHECK_OK(put_run(regs + offsetof(kvm_regs, rip), rip));
    return put_run(offsetof(kvm_run, kvm_dirty_regs), std::uint64_t{KVM_SYNC_X86_REGS});
}

Result<void> Vcpu::set_guest_debug(const kvm_guest_debug& debug) {
    if (debug_known_ && std::memcmp(&debug_, &debug, sizeof debug) == 0) return {};
    const auto result = TRY(ioctl(KVM_SET_GUEST_DEBUG, std::as_bytes(std::span{&debug, 1})));
    if (result < 0)
        return fail(Errc::unsupported,
                    std::string{"KVM_SET_GUEST_DEBUG: "} + std::strerror(static_cast<int>(-result)));
    debug_ = debug;
    debug_known_ = true;
    return {};
}

// There the kernel's GS base is what is asked for next: it tells the CPU.
Result<bool> Vcpu::in_user_mode() const { return (TRY(run_area()).s.regs.sregs.cs.selector & 3U) == 3; }

// To be posted; its arguments are in their place.
CallRequest Vcpu::gs_request() const {
    const OneMsr msr{.entry = {.index = msr_kernel_gs_base}};
    std::memcpy(board_data_ + board_->argument_offset(index_), &msr, sizeof msr);
    return {.number = __NR_ioctl,
            .a = static_cast<std::uint64_t>(handle_.fd),
            .b = ioctl_get_msrs,
            .c = board_->arguments(index_)};
}

// That was a gs_request().
void Vcpu::take_gs(const CallRequest& call) {
    if (call.result == 1)
        kernel_gs_ = copy_from<OneMsr>(board_data_ + board_->argument_offset(index_)).entry.data;
}

Result<void> Vcpu::finish_gs() {
    if (!std::exchange(asked_for_gs_, false)) return {};
    CHECK_OK(await());
    take_gs(mailbox().calls[0]);
    return {};
}

Result<std::optional<std::uint64_t>> Vcpu::kernel_gs_base() {
    CHECK_OK(finish_gs());
    if (kernel_gs_) return kernel_gs_;
    return msr(msr_kernel_gs_base);
}

Result<std::optional<std::uint64_t>> Vcpu::msr(std::uint32_t index) {
    OneMsr msr{.entry = {.index = index}};
    const auto bytes = std::as_writable_bytes(std::span{&msr, 1});
    if (TRY(ioctl(ioctl_get_msrs, bytes, bytes)) != 1) return std::nullopt;
    return msr.entry.data;
}

Result<bool> Vcpu::set_kernel_gs_base(std::uint64_t value) {
    kernel_gs_.reset();
    const OneMsr msr{.entry = {.index = msr_kernel_gs_base, .data = value}};
    return TRY(ioctl(ioctl_set_msrs, std::as_bytes(std::span{&msr, 1}))) == 1;
}

// Before the VMM goes on to its next KVM_RUN with breakpoints armed. Should exogdb be killed meanwhile, that
// one does not enter the guest before its next interrupt, and a guardian is faster.
Result<void> Vcpu::set_halted(bool halted) {
    if (halted_ == halted) return {};
    const auto noted = board_->record(index_) + offsetof(ThreadRecord, halted);
    if (halted) {  // noted before it is
        halted_ = true;
        CHECK_OK(memory_->put<std::uint64_t>(noted, 1));
    }
    const kvm_mp_state state{
        static_cast<std::uint32_t>(halted ? KVM_MP_STATE_HALTED : KVM_MP_STATE_RUNNABLE)};
    const auto result = TRY(ioctl(KVM_SET_MP_STATE, std::as_bytes(std::span{&state, 1})));
    halted_ = halted && result == 0;  // EINVAL: its interrupt controller is not KVM's
    return memory_->put<std::uint64_t>(noted, halted_ ? 1 : 0);
}

// --- KVM_RUN on the springboard

Result<void> Vcpu::run_from_board(Posted what) {
    stopping_ = false;
    stepping_ = what == Posted::step;
    if (board_data_ == nullptr) return enter_from_board();
    CHECK_OK(park());
    CHECK_OK(finish_gs());
    kernel_gs_.reset();
    const CallRequest run{.number = __NR_ioctl, .a = static_cast<std::uint64_t>(handle_.fd), .b = KVM_RUN};
    const std::array calls{run, gs_request()};
    exo::kvm::post(mailbox(), std::span{calls}.first(TRY(in_user_mode()) ? 2 : 1));
    posted_ = true;
    return {};
}

bool Vcpu::wait_posted(Clock::time_point deadline) const { return wait_until_done(mailbox(), deadline); }

void Vcpu::wait_for_any(std::span<const Vcpu* const> posted, std::chrono::microseconds limit) {
    std::array<const Mailbox*, most_awaited> boxes{};
    const std::size_t count = std::min(posted.size(), boxes.size());
    for (std::size_t i = 0; i < count; ++i) boxes.at(i) = &posted[i]->mailbox();
    wait_until_any_done(std::span{boxes}.first(count), limit);
}

void Vcpu::watch() {
    if (!posted_ || interrupting_) return;
    interrupting_ = true;
    tracer_->run([&] { thread_->interrupt(); });
}

// Its end is in the mailbox.
std::int64_t Vcpu::take_posted() {
    posted_ = false;
    const auto& box = mailbox();
    if (box.count == 2) take_gs(box.calls[1]);
    return box.calls[0].result;
}

// We have asked for it, or somebody stops all threads of the VMM.
Result<RunExit> Vcpu::take_parked_stop() {
    parked_ = interrupting_ = false;
    if (is_done(mailbox())) return returned(take_posted());
    posted_ = false;
    const auto run = last_run(TRY(thread_->registers()), *board_, mailbox(), handle_.fd);
    if (stopping_ || run.result != -EINTR) return returned(run.result);
    CHECK_OK(enter_from_board());
    return RunExit{};
}

}  // namespace exo::kvm
