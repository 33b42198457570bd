#include "tests/lab/vmm/gate.h"

#include <unistd.h>

#include <csignal>
#include <cstdio>

namespace vmm {
namespace {

int kick_signal() { return SIGRTMIN; }

sigset_t served_signals() {
    sigset_t set;
    sigemptyset(&set);
    for (int signal : {SIGUSR1, SIGUSR2, SIGTERM, SIGINT}) sigaddset(&set, signal);
    return set;
}

}  // namespace

void Gate::open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    opened_.notify_all();
}

void Gate::close() {
    std::lock_guard lock(mutex_);
    open_ = false;
    for (const Runner& runner : runners_) {
        // The signal alone would be lost on a thread that is about to call KVM_RUN (KVM_CAP_IMMEDIATE_EXIT).
        __atomic_store_n(&runner.run->immediate_exit, uint8_t{1}, __ATOMIC_SEQ_CST);
        pthread_kill(runner.thread, kick_signal());
    }
}

void Gate::enter(kvm_run* run) {
    std::lock_guard lock(mutex_);
    runners_.push_back({.thread = pthread_self(), .run = run});
}

void Gate::pass(kvm_run* run) {
    std::unique_lock lock(mutex_);
    if (!open_) {
        if (++waiting_ == runners_.size()) std::fputs("small_vmm: all vCPUs wait\n", stderr);
        opened_.wait(lock, [this] { return open_; });
        --waiting_;
    }
    __atomic_store_n(&run->immediate_exit, uint8_t{0}, __ATOMIC_SEQ_CST);
}

void prepare_signals() {
    sigset_t served = served_signals();
    pthread_sigmask(SIG_BLOCK, &served, nullptr);
    struct sigaction action{};
    action.sa_handler = [](int) {};  // without SA_RESTART: KVM_RUN returns EINTR
    sigaction(kick_signal(), &action, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
}

void serve_signals(Gate& gate) {
    sigset_t served = served_signals();
    for (;;) {
        int signal = 0;
        if (sigwait(&served, &signal) != 0) continue;
        if (signal == SIGUSR1) gate.open();
        if (signal == SIGUSR2) gate.close();
        if (signal == SIGTERM || signal == SIGINT) {
            std::fflush(nullptr);
            _exit(0);
        }
    }
}

}  // namespace vmm
