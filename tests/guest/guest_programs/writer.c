// A program of the guest's that calls write(2) through the C library over and over again: /bin/writer NAME
// MICROSECONDS, which it sleeps after each.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

// In a file of the process' name, as of process.c: its loop is its spinning.
struct counters {
    volatile uint64_t calls, spins, wrong;
};

int main(int count, char** words) {
    if (count != 3) return 2;
    int file = open(words[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
    int sink = open("/dev/null", O_WRONLY);
    if (file < 0 || sink < 0 || ftruncate(file, sizeof(struct counters))) return 3;
    struct counters* counters = mmap(NULL, sizeof *counters, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (counters == MAP_FAILED) return 4;
    prctl(PR_SET_NAME, strrchr(words[1], '/') + 1);
    for (useconds_t pause = (useconds_t)atol(words[2]);; ++counters->spins) {
        if (write(sink, "12345", 5) != 5) ++counters->wrong;
        ++counters->calls;
        if (pause) usleep(pause);
    }
}
