// A process that does nothing, until the end.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

namespace exo::kvm {

struct IdleProcess {
    pid_t pid = ::fork();
    IdleProcess() {
        while (pid == 0) ::pause();
    }
    ~IdleProcess() {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
    }
    IdleProcess(const IdleProcess&) = delete;
    IdleProcess& operator=(const IdleProcess&) = delete;
};

}  // namespace exo::kvm
