// A guest in which much goes on: tasks that sleep and wake each other, come and go, fault pages in, and use
// up the processors; and threads that count the system calls that they make.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

static void answer_each(int from, int to) {
    char byte = 0;
    while (read(from, &byte, 1) == 1 && write(to, &byte, 1) == 1) continue;
    _exit(0);
}

// Two processes, of which each sleeps in a pipe until the other has written.
static void ping_and_pong(void) {
    int there[2], back[2];
    if (pipe(there) || pipe(back)) return;
    if (fork() == 0) {
        prctl(PR_SET_NAME, "ponger");
        answer_each(there[0], back[1]);
    }
    if (fork() == 0) {
        prctl(PR_SET_NAME, "pinger");
        if (write(there[1], "", 1) == 1) answer_each(back[0], there[1]);
        _exit(1);
    }
}

static void come_and_go(void) {
    prctl(PR_SET_NAME, "forker");
    for (;; usleep(2000)) {
        pid_t child = fork();
        if (child == 0) _exit(0);
        waitpid(child, NULL, 0);
    }
}

static void fault(void) {
    enum { BYTES = 64 << 12 };
    prctl(PR_SET_NAME, "mapper");
    for (;; usleep(2000)) {
        char* area = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (area == MAP_FAILED) continue;
        memset(area, 1, BYTES);
        munmap(area, BYTES);
    }
}

static void sleep_long(void) {
    prctl(PR_SET_NAME, "sleeper");
    for (;;) usleep(300000);
}

static void use_up(void) {
    prctl(PR_SET_NAME, "hog");
    if (nice(10) < 0) _exit(1);
    for (volatile unsigned long count = 0;; ++count) continue;
}

void scenario_busy(void) {
    static void (*const work[])(void) = {come_and_go, fault, sleep_long, use_up, use_up};
    ping_and_pong();
    ping_and_pong();
    for (size_t index = 0; index < sizeof work / sizeof *work; ++index)
        if (fork() == 0) {
            work[index]();
            _exit(1);
        }
}

// System calls that do no harm with -1 for every argument: most of them find no such descriptor.
// clang-format off
#define CALLS(X) \
    X(getpid) X(gettid) X(getuid) X(geteuid) X(getgid) X(getegid) X(getppid) X(getpgrp) X(getpgid) \
    X(getsid) X(read) X(write) X(close) X(newfstat) X(lseek) X(ioctl) X(pread64) X(pwrite64) \
    X(readv) X(writev) X(dup) X(dup2) X(sendfile64) X(connect) X(accept) X(sendto) X(recvfrom) \
    X(sendmsg) X(recvmsg) X(shutdown) X(bind) X(listen) X(getsockname) X(getpeername) X(setsockopt) \
    X(getsockopt) X(fcntl) X(flock) X(fsync) X(fdatasync) X(ftruncate) X(getdents64) X(fchdir) \
    X(fchmod) X(fchown) X(fstatfs) X(sched_getscheduler) X(sched_getparam) X(readahead) X(fgetxattr) \
    X(flistxattr) X(epoll_wait) X(fadvise64) X(epoll_ctl) X(openat) X(mkdirat) X(unlinkat) \
    X(renameat) X(readlinkat) X(fchmodat) X(faccessat) X(splice) X(tee) X(fallocate)
// clang-format on
// What the kernel calls otherwise than <sys/syscall.h>.
#define SYS_newfstat SYS_fstat
#define SYS_sendfile64 SYS_sendfile
#define NUMBER(name) SYS_##name,
#define NAME(name) #name,
static const long numbers[] = {CALLS(NUMBER)};
static const char* const names[] = {CALLS(NAME)};
enum { KINDS = sizeof numbers / sizeof *numbers };

struct caller {
    pthread_t thread;
    int cpu, tid;
    unsigned long made[KINDS];
};
static struct caller callers[MAX_CPUS];
static int caller_count;
static volatile int calling;

static void* call_all(void* argument_) {
    struct caller* self = argument_;
    pin(self->cpu);
    self->tid = (int)syscall(SYS_gettid);  // before the first that counts
    memset(self->made, 0, sizeof self->made);
    while (!calling) usleep(1000);
    while (calling)
        for (int kind = 0; kind < KINDS; ++kind, usleep(100)) {
            syscall(numbers[kind], -1, -1, -1, -1, -1, -1);
            ++self->made[kind];
        }
    return NULL;
}

static const char* call_from_now(void) {
    caller_count = cpu_count() < MAX_CPUS ? cpu_count() : MAX_CPUS;
    for (int cpu = 0; cpu < caller_count; ++cpu) {
        callers[cpu].cpu = cpu;
        callers[cpu].tid = 0;
        if (pthread_create(&callers[cpu].thread, NULL, call_all, &callers[cpu])) return "no thread";
    }
    for (int cpu = 0; cpu < caller_count; ++cpu) {
        while (!callers[cpu].tid) usleep(1000);
        say("%d\n", callers[cpu].tid);
    }
    return NULL;
}

// "calls names": what can be called. "calls prepare": the TIDs of one thread for each CPU. "calls begin":
// from now on they call. "calls end": "TID NAME COUNT" of each that was made, when all have ended.
const char* answer_calls(char* rest) {
    if (!strcmp(rest, "names")) {
        for (int kind = 0; kind < KINDS; ++kind) say("%s\n", names[kind]);
        return NULL;
    }
    if (!strcmp(rest, "prepare")) return call_from_now();
    if (!strcmp(rest, "begin")) {
        calling = 1;
        return NULL;
    }
    if (strcmp(rest, "end")) return "names, prepare, begin or end";
    calling = 0;
    for (int cpu = 0; cpu < caller_count; ++cpu) {
        pthread_join(callers[cpu].thread, NULL);
        for (int kind = 0; kind < KINDS; ++kind)
            say("%d %s %lu\n", callers[cpu].tid, names[kind], callers[cpu].made[kind]);
    }
    caller_count = 0;
    return NULL;
}
