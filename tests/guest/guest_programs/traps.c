// PID 1 of a guest of a few megabytes: one process makes the same system call for ever, another executes int3
// and counts the SIGTRAPs that come back. What a debugger does to the guest must not change any of these
// numbers' relations.
#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

struct counts {
    atomic_ulong calls, executed, trapped, wrong;
};

static struct counts* counts;
extern const char after_int3[];

static void on_trap(int number, siginfo_t* info, void* context) {
    (void)number;
    const ucontext_t* interrupted = context;
    const long pc = (long)interrupted->uc_mcontext.gregs[REG_RIP];
    atomic_fetch_add(&counts->trapped, 1);
    // The kernel's do_int3: SI_KERNEL, and an instruction pointer behind the int3.
    if (info->si_code != SI_KERNEL || pc != (long)after_int3) atomic_fetch_add(&counts->wrong, 1);
}

static void rest(void) {
    const struct timespec time = {0, 2000000};
    nanosleep(&time, NULL);
}

static void trap_for_ever(void) {
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    sigaction(SIGTRAP, &action, NULL);
    for (;;) {
        atomic_fetch_add(&counts->executed, 1);
        __asm__ volatile("int3\n.globl after_int3\nafter_int3:" ::: "memory");
        const unsigned long executed = atomic_load(&counts->executed);
        if (atomic_load(&counts->trapped) != executed) atomic_fetch_add(&counts->wrong, 1);
        rest();
    }
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED) return 1;
    if (fork() == 0) trap_for_ever();
    puts("traps: ready");
    for (;;) {
        syscall(SYS_getppid);
        if (atomic_fetch_add(&counts->calls, 1) % 64 == 0)
            printf("traps: calls %lu executed %lu trapped %lu wrong %lu\n", atomic_load(&counts->calls),
                   atomic_load(&counts->executed), atomic_load(&counts->trapped),
                   atomic_load(&counts->wrong));
        rest();
    }
}
