// PID 1 of a small guest, which tells what a debugger does to it. One process makes system calls that a
// debugger can count: getppid(), of which the kernel does not look at the argument, with a number that grows
// by one, and sethostname() with the same number as its first byte. It reads the first byte of getppid()'s
// code, too. Another process executes int3 and counts the SIGTRAPs that come of it. How many of each there
// were is printed.
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define FUNCTION "__x64_sys_getppid"

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
    // The kernel's do_int3(): SI_KERNEL, and an instruction pointer behind the int3.
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

static unsigned long address_of(const char* symbol) {
    char line[256];
    unsigned long found = 0;
    FILE* symbols = fopen("/proc/kallsyms", "r");
    while (symbols && !found && fgets(line, sizeof line, symbols)) {
        line[strcspn(line, "\t\n")] = 0;
        const char* name = strrchr(line, ' ');
        if (name && !strcmp(name + 1, symbol)) found = strtoul(line, NULL, 16);
    }
    if (symbols) fclose(symbols);
    return found;
}

// Where /proc/kcore has the kernel's memory at that address.
static off_t place_in(int kcore, unsigned long address) {
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    if (pread(kcore, &header, sizeof header, 0) != sizeof header) return 0;
    for (unsigned index = 0; index < header.e_phnum; ++index) {
        const off_t at = (off_t)(header.e_phoff + index * sizeof segment);
        if (pread(kcore, &segment, sizeof segment, at) != sizeof segment) return 0;
        if (segment.p_type == PT_LOAD && address >= segment.p_vaddr &&
            address - segment.p_vaddr < segment.p_filesz)
            return (off_t)(address - segment.p_vaddr + segment.p_offset);
    }
    return 0;
}

static int byte_at(int kcore, off_t place) {
    unsigned char byte;
    return place != 0 && pread(kcore, &byte, 1, place) == 1 ? byte : -1;
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    mkdir("/proc", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED) return 1;
    if (fork() == 0) trap_for_ever();
    const int kcore = open("/proc/kcore", O_RDONLY);
    const off_t place = place_in(kcore, address_of(FUNCTION));
    const int first = byte_at(kcore, place);
    unsigned long changed = 0;
    printf("traps: ready, first byte %d\n", first);
    for (;;) {
        const unsigned long number = atomic_fetch_add(&counts->calls, 1);
        const char name = (char)number;
        syscall(SYS_getppid, number);
        sethostname(&name, 1);
        changed += byte_at(kcore, place) != first;
        if (number % 32 == 0)
            printf("traps: calls %lu executed %lu trapped %lu wrong %lu changed %lu\n", number,
                   atomic_load(&counts->executed), atomic_load(&counts->trapped), atomic_load(&counts->wrong),
                   changed);
        rest();
    }
}
