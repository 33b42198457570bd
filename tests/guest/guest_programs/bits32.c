// A 32-bit program of the guest's, with no C library: /bin/bits32 (tests/guest/test_process_32.py). System
// calls are those of arch/x86/entry/syscalls/syscall_32.tbl.
#include <stdint.h>

enum { sys_kill = 37, sys_getpid = 20, sys_getppid = 64, sys_sigaction = 67, sys_nanosleep = 162 };
enum { sigusr1 = 10 };

volatile uint32_t calls, wrong, spins, signals;
volatile int answer = 42;  // a debugger changes it
volatile int spin;         // a debugger sets it
const char greeting[] = "a program of 32 bits";

__attribute__((noinline)) static int32_t call(int32_t number, int32_t first, const void* second) {
    int32_t result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second) : "memory");
    return result;
}

__attribute__((noinline)) int leaf(int number) {
    ++calls;
    return number + 1;
}

__attribute__((noinline)) int middle(int number) {
    int result = leaf(number);
    call(sys_getppid, 0, 0);
    return result * 2;
}

static void signalled(int number) { signals += (uint32_t)number; }

// Its registers are known to the last.
__attribute__((noinline)) static void turns(void) {
    __asm__ volatile(
        "1: incl %0\n\t"
        "pause\n\t"
        "cmpl $0, %1\n\t"
        "jne 1b\n\t"
        : "+m"(spins)
        : "m"(spin), "S"(0x16161616), "D"(0x17171717)
        : "cc");
}

__attribute__((noinline)) static void sleep_for(const int32_t* time) {
    call(sys_nanosleep, (int32_t)time, 0);
}

void _start(void) {
    // struct old_sigaction: handler, mask, flags, restorer, which is the vDSO's then.
    const uint32_t action[4] = {(uint32_t)signalled, 0, 0, 0};
    static const int32_t time[2] = {0, 5000000};
    call(sys_sigaction, sigusr1, action);
    __asm__ volatile(
        "movl $0x18181818, %%eax\n\t"
        "movd %%eax, %%xmm3\n\t"
        "fldpi\n\t" ::
            : "eax");
    for (int round = 0;; ++round) {
        uint32_t before = signals;
        if (middle(round % 100) != (round % 100 + 1) * 2) ++wrong;
        call(sys_kill, call(sys_getpid, 0, 0), (const void*)sigusr1);
        if (signals != before + sigusr1) ++wrong;
        if (spin) turns();
        sleep_for(time);
    }
}
