// What a program can see of a debugger that stops the machine under it: one thread on each CPU looks for it,
// round after round, most of the time asleep, beside the spinners. "witness" tells what they found.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "guest.h"

enum { PATTERN_WORDS = 1 << 14, PAUSE_US = 20000, GENERAL = 12, VECTORS = 2 };

static struct witness {
    _Alignas(64) volatile uint64_t rounds;
    volatile uint64_t int3;       // executed
    volatile uint64_t traps;      // SIGTRAPs at the int3
    volatile uint64_t stray;      // SIGTRAPs at any other place
    volatile uint64_t backwards;  // the clock was behind what any thread had read before
    volatile uint64_t memory;     // words of the pattern that had changed
    volatile uint64_t registers;  // that an int3 came back with changed
    volatile uint64_t trap_flag;  // rounds that found RFLAGS.TF set
    int cpu;
    uint64_t* pattern;
} witnesses[MAX_CPUS];
static int witness_count;
static _Thread_local struct witness* own;
static volatile uint64_t latest;  // CLOCK_MONOTONIC in ns, of all threads

extern char exo_witness_int3_after[];

static void on_trap(int number, siginfo_t* info, void* context) {
    (void)number;
    (void)info;
    uint64_t at = (uint64_t)((ucontext_t*)context)->uc_mcontext.gregs[REG_RIP];
    if (!own || at != (uint64_t)exo_witness_int3_after)
        ++witnesses[own ? own->cpu : 0].stray;
    else
        ++own->traps;
}

// Executes int3 with every register that a function may keep set to a value made of `seed`; what they hold
// behind it.
__attribute__((noinline)) static void trap(uint64_t seed, uint64_t general[GENERAL],
                                           uint64_t vectors[VECTORS]) {
    __asm__ volatile(
        "movq %0, %%rax\n\t"
        "leaq 1(%%rax), %%rbx\n\tleaq 2(%%rax), %%rcx\n\tleaq 3(%%rax), %%rdx\n\t"
        "leaq 4(%%rax), %%r8\n\tleaq 5(%%rax), %%r9\n\tleaq 6(%%rax), %%r10\n\tleaq 7(%%rax), %%r11\n\t"
        "leaq 8(%%rax), %%r12\n\tleaq 9(%%rax), %%r13\n\tleaq 10(%%rax), %%r14\n\tleaq 11(%%rax), %%r15\n\t"
        "movq %%r14, %%xmm6\n\tmovq %%r15, %%xmm15\n\t"
        "int3\n"
        ".globl exo_witness_int3_after\n"
        "exo_witness_int3_after:\n\t"
        "movq %%rax, 0(%1)\n\tmovq %%rbx, 8(%1)\n\tmovq %%rcx, 16(%1)\n\tmovq %%rdx, 24(%1)\n\t"
        "movq %%r8, 32(%1)\n\tmovq %%r9, 40(%1)\n\tmovq %%r10, 48(%1)\n\tmovq %%r11, 56(%1)\n\t"
        "movq %%r12, 64(%1)\n\tmovq %%r13, 72(%1)\n\tmovq %%r14, 80(%1)\n\tmovq %%r15, 88(%1)\n\t"
        "movq %%xmm6, 0(%2)\n\tmovq %%xmm15, 8(%2)\n"
        :
        : "m"(seed), "D"(general), "S"(vectors)
        : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm6", "xmm15",
          "memory", "cc");
}

static void check_trap(struct witness* self) {
    uint64_t general[GENERAL] = {0}, vectors[VECTORS] = {0}, seed = self->rounds << 8;
    ++self->int3;
    trap(seed, general, vectors);
    for (int index = 0; index < GENERAL; ++index)
        if (general[index] != seed + (uint64_t)index) ++self->registers;
    for (int index = 0; index < VECTORS; ++index)
        if (vectors[index] != seed + 10 + (uint64_t)index) ++self->registers;
}

static void check_clock(struct witness* self) {
    uint64_t before = __atomic_load_n(&latest, __ATOMIC_SEQ_CST);
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    uint64_t now = (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
    if (now < before) ++self->backwards;
    while (before < now &&
           !__atomic_compare_exchange_n(&latest, &before, now, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
}

static uint64_t pattern_word(const struct witness* self, uint64_t round, uint64_t index) {
    return (round * PATTERN_WORDS + index) * 0x9e3779b97f4a7c15 + (uint64_t)self->cpu;
}

static void fill(struct witness* self) {
    for (uint64_t index = 0; index < PATTERN_WORDS; ++index)
        self->pattern[index] = pattern_word(self, self->rounds, index);
}

static void check_memory(struct witness* self) {
    for (uint64_t index = 0; index < PATTERN_WORDS; ++index)
        if (self->pattern[index] != pattern_word(self, self->rounds, index)) ++self->memory;
}

static void check_trap_flag(struct witness* self) {
    enum { TF = 0x100 };
    if (__builtin_ia32_readeflags_u64() & TF) ++self->trap_flag;
}

static void* witness_thread(void* argument_) {
    struct witness* self = own = argument_;
    char name[16];
    snprintf(name, sizeof name, "witness-%d", self->cpu);
    prctl(PR_SET_NAME, name);
    pin(self->cpu);
    for (;; ++self->rounds) {
        fill(self);
        usleep(PAUSE_US);
        check_memory(self);
        check_clock(self);
        check_trap(self);
        check_trap_flag(self);
    }
    return NULL;
}

void scenario_witness(void) {
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    sigaction(SIGTRAP, &action, NULL);
    pthread_t thread;
    witness_count = cpu_count() < MAX_CPUS ? cpu_count() : MAX_CPUS;
    for (int cpu = 0; cpu < witness_count; ++cpu) {
        witnesses[cpu].cpu = cpu;
        witnesses[cpu].pattern = malloc(PATTERN_WORDS * sizeof *witnesses[cpu].pattern);
        pthread_create(&thread, NULL, witness_thread, &witnesses[cpu]);
    }
    scenario_spin();
}

// For each CPU: "cpu N NAME VALUE…"; the names are those of struct witness.
const char* answer_witness(char* rest) {
    (void)rest;
    if (!witness_count) return "no such scenario";
    for (int cpu = 0; cpu < witness_count; ++cpu) {
        const struct witness* of = &witnesses[cpu];
        const struct {
            const char* name;
            uint64_t value;
        } fields[] = {
            {"rounds", of->rounds},       {"int3", of->int3},           {"traps", of->traps},
            {"stray", of->stray},         {"backwards", of->backwards}, {"memory", of->memory},
            {"registers", of->registers}, {"trap_flag", of->trap_flag},
        };
        say("cpu %d", cpu);
        for (size_t index = 0; index < sizeof fields / sizeof *fields; ++index)
            say(" %s %llu", fields[index].name, (unsigned long long)fields[index].value);
        say("\n");
    }
    return NULL;
}
