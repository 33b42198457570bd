// PID 1 of the test guest: sets up a scenario, then answers commands on the second serial port.
//
// Kernel command line: exo.scenario=idle|spin|syscalls|threads|witness|busy|process (default idle),
// exo.threads=N.
//   idle     nothing but the kernel's own threads and this process
//   spin     one thread pinned on each CPU that stays in user mode for ever, with known register values
//   syscalls the same threads make one system call after the other
//   witness  spin, and beside it one thread on each CPU that looks for what a debugger does to it (witness.c)
//   mappings a process with mappings of each kind (mappings.c)
//   busy     tasks that sleep, wake each other, come, go, and use up the processors (busy.c)
//   process  two processes of one program for a debugger to attach to (process.c)
//   threads  one process with N threads, and processes in odd states with odd names
//
// Command channel, ttyS1 or what exo.channel= names: one command a line; the answer is any number of lines,
// then a line that is
// ".ok" or ".error WHY". Everything that the host wants to compare with is printed from /proc, so that
// it is the guest's own view and not a guess.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

size_t read_file(const char* path, char* buffer, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t total = 0;
    while (fd >= 0 && total + 1 < size) {
        ssize_t got = read(fd, buffer + total, size - 1 - total);
        if (got <= 0) break;
        total += (size_t)got;
    }
    if (fd >= 0) close(fd);
    buffer[total] = 0;
    return total;
}

void argument(const char* key, char* value, size_t size) {
    char line[LINE];
    size_t length = strlen(key);
    read_file("/proc/cmdline", line, sizeof line);
    for (char* word = strtok(line, " \n"); word; word = strtok(NULL, " \n"))
        if (!strncmp(word, key, length) && word[length] == '=')
            snprintf(value, size, "%s", word + length + 1);
}

int pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof set, &set);
}

int cpu_count(void) { return (int)sysconf(_SC_NPROCESSORS_ONLN); }

static void mount_all(void) {
    const char* const mounts[][2] = {{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}};
    for (size_t index = 0; index < sizeof mounts / sizeof *mounts; ++index) {
        mkdir(mounts[index][1], 0755);
        mount(mounts[index][0], mounts[index][1], mounts[index][0], 0, NULL);
    }
}

int main(int count, char** arguments) {
    char scenario[32] = "idle";
    if (count > 1 && !strcmp(arguments[0], "mapper")) return be_mapper();
    mount_all();
    argument("exo.scenario", scenario, sizeof scenario);
    if (!strcmp(scenario, "spin")) scenario_spin();
    if (!strcmp(scenario, "syscalls")) scenario_syscalls();
    if (!strcmp(scenario, "threads")) scenario_threads();
    if (!strcmp(scenario, "witness")) scenario_witness();
    if (!strcmp(scenario, "busy")) scenario_busy();
    if (!strcmp(scenario, "process")) scenario_process();
    if (!strcmp(scenario, "writers")) scenario_writers();
    if (!strcmp(scenario, "mappings")) scenario_mappings();

    printf("exo-guest-ready %s\n", scenario);
    fflush(stdout);
    int connected = open_channel();
    if (!connected) printf("exo-guest: no second serial port, no command channel\n");
    fflush(stdout);
    if (connected) answer_commands();
    for (;;) pause();
}
