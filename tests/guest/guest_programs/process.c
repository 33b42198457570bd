// A program of the guest's for a debugger to attach to; /bin/process NAME. Its threads are known to the last
// register (tests/guest/test_process.py): one spins, one sleeps in a system call, one calls functions.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// In a file of the process' name, for the guest to compare: what a debugger has no business with.
struct counters {
    volatile uint64_t calls, spins, wrong;
};
static struct counters* counters;

volatile int quit;          // a debugger sets it: the process exits with that
volatile long total;        // what middle() gave last
volatile long answer = 42;  // a debugger changes it
volatile long parent;       // what getppid(2) gives
const char greeting[] = "a process of the guest";
__thread long own = 1;
long* owns[3];  // where each thread has its own

__attribute__((noinline)) long leaf(long number) {
    ++counters->calls;
    return number + 1;
}

__attribute__((noinline)) long middle(long number) {
    long result = leaf(number);
    result *= 2;
    syscall(SYS_getppid);
    total = result;
    return result;
}

static volatile long signals;
static volatile char* page;

static void signalled(int number) { signals += number; }

// The store is a page fault, each time.
__attribute__((noinline)) long fault(long number) {
    madvise((void*)page, 4096, MADV_DONTNEED);
    *page = (char)number;
    return *page;
}

static void* calls(void* unused) {
    (void)unused;
    prctl(PR_SET_NAME, "caller");
    own = 100;
    owns[0] = &own;
    for (;;) {
        long before = signals;
        if (middle(7) != 16 || own != 100) ++counters->wrong;
        if (fault(3) != 3) ++counters->wrong;
        raise(SIGUSR1);
        if (signals != before + SIGUSR1) ++counters->wrong;
        usleep(5000);
    }
    return NULL;
}

static void* spins(void* unused) {
    (void)unused;
    prctl(PR_SET_NAME, "spinner");
    own = 200;
    owns[1] = &own;
    __asm__ volatile(
        "movabs $0x1212121212121212, %%r12\n\t"
        "movabs $0x1313131313131313, %%r13\n\t"
        "movq %%r12, %%xmm3\n\t"
        "movq %%r13, %%xmm4\n\t"
        "punpcklqdq %%xmm4, %%xmm3\n\t"
        "fldpi\n\t"
        ".globl spin_begin\n"
        "spin_begin:\n"
        "1: incq (%0)\n\t"
        "pause\n\t"
        "jmp 1b\n"
        ".globl spin_end\n"
        "spin_end:\n"
        :
        : "D"(&counters->spins)
        : "r12", "r13", "xmm3", "xmm4", "memory", "cc");
    return NULL;
}

// In pause(2) for ever.
__attribute__((noinline)) static void sleep_with(long number) {
    __asm__ volatile(
        "movabs $0x1414141414141414, %%r14\n\t"
        "movabs $0x1515151515151515, %%r15\n\t"
        "movq %%r14, %%xmm6\n\t"
        "movq %%r15, %%xmm7\n\t"
        "punpcklqdq %%xmm7, %%xmm6\n\t"
        "fldl2e\n\t"
        "syscall\n\t"
        :
        : "a"((long)SYS_pause), "D"(number)
        : "r14", "r15", "rcx", "r11", "xmm6", "xmm7", "memory", "cc");
}

__attribute__((noinline)) static void deeper(long number) {
    sleep_with(number + 1);
    ++counters->wrong;
}

static void* sleeps(void* unused) {
    (void)unused;
    prctl(PR_SET_NAME, "sleeper");
    own = 300;
    owns[2] = &own;
    deeper(9);
    return NULL;
}

volatile int wish;  // a debugger sets it: 'f' fork(2), 'v' vfork(2) and exec, 'x' fork(2) and exec

__attribute__((noinline)) static int in_child(int number) { return number + 1; }

// Of this program, which ends at once if it has no argument.
static void run_again(void) {
    char* const words[] = {"again", NULL};
    execv("/bin/process", words);
    _exit(99);
}

// The child has ended: a debugger stops here.
__attribute__((noinline)) static void fulfilled(pid_t pid, int status) {
    (void)pid;
    (void)status;
}

static void fulfil(int what) {
    int status = 0;
    pid_t pid = what == 'v' ? vfork() : fork();
    if (pid == 0) {
        if (what != 'f') run_again();
        _exit(in_child(20));
    }
    waitpid(pid, &status, 0);
    fulfilled(pid, status);
}

int main(int count, char** words) {
    void* (*const bodies[])(void*) = {calls, spins, sleeps};
    if (count != 2) return 2;
    int file = open(words[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (file < 0 || ftruncate(file, sizeof *counters)) return 3;
    counters = mmap(NULL, sizeof *counters, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (counters == MAP_FAILED || page == MAP_FAILED) return 4;
    signal(SIGUSR1, signalled);
    parent = getppid();
    prctl(PR_SET_NAME, strrchr(words[1], '/') + 1);
    for (unsigned index = 0; index < sizeof bodies / sizeof *bodies; ++index) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, bodies[index], NULL)) return 5;
    }
    while (!quit) {
        usleep(10000);
        if (!wish) continue;
        fulfil(wish);
        wish = 0;
    }
    return quit;
}
