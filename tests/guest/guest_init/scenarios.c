// The sets of tasks that a test can ask for on the kernel command line.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

struct spinner spinners[MAX_CPUS];
int spinner_count;

// The registers that the host looks for; it knows the same constants (tests/guest/test_registers.py).
__attribute__((noinline)) static void spin(volatile uint64_t* count) {
    __asm__ volatile(
        "movabs $0x0808080808080808, %%r8\n\t"
        "movabs $0x0909090909090909, %%r9\n\t"
        "movabs $0x1010101010101010, %%r10\n\t"
        "movabs $0x1111111111111111, %%r11\n\t"
        "movabs $0x1212121212121212, %%r12\n\t"
        "movabs $0x1313131313131313, %%r13\n\t"
        "movabs $0x1414141414141414, %%r14\n\t"
        "movabs $0x1515151515151515, %%r15\n\t"
        "movq %%r12, %%xmm3\n\t"
        "movq %%r13, %%xmm4\n\t"
        "punpcklqdq %%xmm4, %%xmm3\n\t"
        "fldpi\n\t"
        ".globl exo_spin_begin\n"
        "exo_spin_begin:\n"
        "1: incq (%0)\n\t"
        "pause\n\t"
        "jmp 1b\n"
        ".globl exo_spin_end\n"
        "exo_spin_end:\n"
        :
        : "D"(count)
        : "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm3", "xmm4", "memory", "cc");
}

__attribute__((noreturn)) static void call(volatile uint64_t* count) {
    for (;; ++*count) syscall(SYS_getppid);
}

static void (*work)(volatile uint64_t*) = spin;

static void* spin_thread(void* argument_) {
    struct spinner* self = argument_;
    char name[16];
    snprintf(name, sizeof name, "spinner-%d", self->cpu);
    prctl(PR_SET_NAME, name);
    pin(self->cpu);
    self->tid = (int)syscall(SYS_gettid);
    work(&self->count);
    return NULL;
}

void scenario_spin(void) {
    pthread_t thread;
    spinner_count = cpu_count() < MAX_CPUS ? cpu_count() : MAX_CPUS;
    for (int cpu = 0; cpu < spinner_count; ++cpu) {
        spinners[cpu].cpu = cpu;
        pthread_create(&thread, NULL, spin_thread, &spinners[cpu]);
    }
    for (int cpu = 0; cpu < spinner_count; ++cpu)
        while (!spinners[cpu].count) usleep(10000);
}

void scenario_syscalls(void) {
    work = call;
    scenario_spin();
}

static const char* const odd_names[] = {
    "with space",
    "fifteen-chars-x",
    "a)b (c",
    "<&>\"'",
    "",
    "tab\there",
    "line\nfeed",
    "percent%s",
    "\xc3\xbcml\xc3\xa4ut",
    "\xff\xfe"
    "bytes",
    "semi;colon,}#*$",
    "/slash/name",
};

static void name_and_wait(const char* name) {
    prctl(PR_SET_NAME, name);
    for (;;) pause();
}

static void* sleeping_thread(void* index) {
    char name[16];
    snprintf(name, sizeof name, "worker-%ld", (long)index);
    name_and_wait(name);
    return NULL;
}

static void* survivor_thread(void* unused) {
    (void)unused;
    name_and_wait("survivor");
    return NULL;
}

static void process_with_threads(long threads) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 32768);
    prctl(PR_SET_NAME, "many-threads");
    for (long index = 1; index < threads; ++index) {
        pthread_t thread;
        if (pthread_create(&thread, &small, sleeping_thread, (void*)index)) break;
    }
    for (;;) pause();
}

static void process_without_leader(void) {  // a zombie leader whose thread lives on
    pthread_t thread;
    prctl(PR_SET_NAME, "dead-leader");
    pthread_create(&thread, NULL, survivor_thread, NULL);
    pthread_exit(NULL);
}

static void process_in_d_state(void) {  // the parent of a vfork waits uninterruptibly
    prctl(PR_SET_NAME, "uninterruptible");
    if (vfork() == 0)
        for (;;) pause();
}

static void process_traced(void) {
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        prctl(PR_SET_NAME, "traced");
        raise(SIGSTOP);
        name_and_wait("traced");
    }
    waitpid(child, NULL, 0);
    name_and_wait("tracer");
}

void scenario_threads(void) {
    char threads[16] = "40";
    argument("exo.threads", threads, sizeof threads);
    if (fork() == 0) process_with_threads(atol(threads));
    for (size_t index = 0; index < sizeof odd_names / sizeof *odd_names; ++index)
        if (fork() == 0) name_and_wait(odd_names[index]);
    if (fork() == 0) process_without_leader();
    if (fork() == 0) process_in_d_state();
    if (fork() == 0) process_traced();
    pid_t stopped = fork();
    if (stopped == 0) {
        prctl(PR_SET_NAME, "stopped");
        raise(SIGSTOP);
        name_and_wait("stopped");
    }
    waitpid(stopped, NULL, WUNTRACED);
    pid_t zombie = fork();
    if (zombie == 0) {
        prctl(PR_SET_NAME, "zombie");
        _exit(3);
    }
    siginfo_t info;
    waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOWAIT);
}
