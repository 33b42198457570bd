// The commands of the channel.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

static FILE *channel, *commands_in;
enum { CONSOLE_LEVEL = 8 };  // SYSLOG_ACTION_CONSOLE_LEVEL, include/linux/syslog.h

void say(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(channel, format, arguments);
    va_end(arguments);
}

static int is_number(const char* text) { return *text && strspn(text, "0123456789") == strlen(text); }

// "tid tgid state flags processor hex(comm)"
static void say_task(const char* tgid, const char* tid) {
    char path[600], stat[LINE];
    snprintf(path, sizeof path, "/proc/%s/task/%s/stat", tgid, tid);
    read_file(path, stat, sizeof stat);
    // The fields follow the last ')': the name itself may have any byte in it (proc(5)).
    char *from = strchr(stat, '('), *to = strrchr(stat, ')'), state = '?';
    unsigned flags = 0;
    int processor = -1;
    if (!from || !to) return;  // it ended meanwhile
    sscanf(to + 1,
           " %c %*d %*d %*d %*d %*d %u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %*u %*u %*d "
           "%*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*d %d",
           &state, &flags, &processor);
    say("%s %s %c %u %d ", tid, tgid, state, flags, processor);
    for (char* byte = from + 1; byte < to; ++byte) say("%02x", (unsigned char)*byte);
    say("\n");
}

static const char* answer_tasks(char* rest) {
    (void)rest;
    DIR* processes = opendir("/proc");
    for (struct dirent* process; processes && (process = readdir(processes));) {
        if (!is_number(process->d_name)) continue;
        char path[600];
        snprintf(path, sizeof path, "/proc/%s/task", process->d_name);
        DIR* tasks = opendir(path);
        for (struct dirent* task; tasks && (task = readdir(tasks));)
            if (is_number(task->d_name)) say_task(process->d_name, task->d_name);
        if (tasks) closedir(tasks);
    }
    if (processes) closedir(processes);
    return NULL;
}

static unsigned long long monotonic_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long long)now.tv_sec * 1000 + (unsigned long long)now.tv_nsec / 1000000;
}

// Runs on each CPU in turn, so an answer proves that every CPU schedules: "cpu N ms COUNT", where COUNT
// is of the thread that spins there.
static const char* answer_alive(char* rest) {
    (void)rest;
    cpu_set_t before;
    sched_getaffinity(0, sizeof before, &before);
    for (int cpu = 0; cpu < cpu_count(); ++cpu) {
        if (pin(cpu) || sched_getcpu() != cpu) return "a CPU does not take this task";
        unsigned long long count = cpu < spinner_count ? spinners[cpu].count : 0;
        say("cpu %d %llu %llu\n", cpu, monotonic_ms(), count);
    }
    sched_setaffinity(0, sizeof before, &before);
    return NULL;
}

// "tid cpu BEGIN END COUNTER": the loop's first byte and the one past it, and where it counts.
static const char* answer_spinners(char* rest) {
    (void)rest;
    for (int index = 0; index < spinner_count; ++index)
        say("%d %d %p %p %p\n", spinners[index].tid, spinners[index].cpu, (void*)exo_spin_begin,
            (void*)exo_spin_end, (void*)&spinners[index].count);
    return NULL;
}

// "symbol NAME…": "ADDRESS NEXT NAME" for each that kallsyms has, NEXT being the lowest higher address in it.
static const char* answer_symbol(char* rest) {
    enum { MOST = 64 };
    unsigned long long wanted[MOST], next[MOST], address;
    char *names[MOST], line[1024], name[512];
    int count = 0;
    for (char* word = strtok(rest, " "); word && count < MOST; word = strtok(NULL, " ")) {
        names[count] = word;
        wanted[count] = 0;
        next[count++] = ~0ULL;
    }
    for (int pass = 0; pass < 2; ++pass) {
        FILE* file = fopen("/proc/kallsyms", "r");
        if (!file) return "no kallsyms";
        while (fgets(line, sizeof line, file)) {
            if (sscanf(line, "%llx %*c %511s", &address, name) != 2) continue;
            for (int index = 0; index < count; ++index) {
                if (pass == 0 && !wanted[index] && !strcmp(names[index], name)) wanted[index] = address;
                if (pass == 1 && address > wanted[index] && address < next[index]) next[index] = address;
            }
        }
        fclose(file);
    }
    for (int index = 0; index < count; ++index)
        if (wanted[index]) say("%llx %llx %s\n", wanted[index], next[index], names[index]);
    return NULL;
}

static const char* answer_file(char* rest) {
    static char text[1 << 16];
    size_t size = read_file(rest, text, sizeof text);
    say("%s", text);
    if (size && text[size - 1] != '\n') say("\n");
    return size ? NULL : "nothing to read there";
}

// Runs a shell command, its output and error output in the answer.
static const char* answer_run(char* rest) {
    fflush(channel);
    pid_t child = fork();
    if (child == 0) {
        dup2(fileno(channel), 1);
        dup2(fileno(channel), 2);
        execl("/bin/busybox", "sh", "-c", rest, (char*)NULL);
        _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? NULL : "the command failed";
}

// "getpid N": N system calls for the host to put a breakpoint under.
static const char* answer_getpid(char* rest) {
    for (long count = atol(rest); count > 0; --count) syscall(SYS_getpid);
    return NULL;
}

// "load FILE": into the kernel, as insmod(8) does.
static const char* answer_load(char* rest) {
    int fd = open(rest, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return "no such file";
    long failed = syscall(SYS_finit_module, fd, "", 0);
    int why = errno;
    close(fd);
    return failed ? strerror(why) : NULL;
}

// "unload NAME"
static const char* answer_unload(char* rest) {
    return syscall(SYS_delete_module, rest, O_NONBLOCK) ? strerror(errno) : NULL;
}

// "open PATH": once, and closed again.
static const char* answer_open(char* rest) {
    int fd = open(rest, O_RDWR | O_CLOEXEC);
    if (fd < 0) return strerror(errno);
    close(fd);
    return NULL;
}

static const char* answer_hello(char* rest) {
    say("hello %s\n", rest);
    return NULL;
}

// The kernel panics, and nothing is answered.
static const char* answer_crash(char* rest) {
    (void)rest;
    int trigger = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
    if (trigger < 0 || write(trigger, "c", 1) != 1) return strerror(errno);
    return "it did not crash";
}

static const char* answer_poweroff(char* rest) {
    (void)rest;
    reboot(RB_POWER_OFF);
    return "still on";
}

static const char* answer_reboot(char* rest) {
    (void)rest;
    reboot(RB_AUTOBOOT);
    return "still on";
}

static const struct {
    const char* name;
    const char* (*answer)(char* rest);
} commands[] = {
    {"hello", answer_hello},       {"tasks", answer_tasks},       {"alive", answer_alive},
    {"spinners", answer_spinners}, {"symbol", answer_symbol},     {"file", answer_file},
    {"text", answer_text},         {"run", answer_run},           {"getpid", answer_getpid},
    {"crash", answer_crash},       {"poweroff", answer_poweroff}, {"reboot", answer_reboot},
    {"load", answer_load},         {"unload", answer_unload},     {"open", answer_open},
    {"witness", answer_witness},   {"calls", answer_calls},
};

static const char* answer(char* line) {
    char* rest = strchr(line, ' ');
    if (rest)
        *rest++ = 0;
    else
        rest = line + strlen(line);
    for (size_t index = 0; index < sizeof commands / sizeof *commands; ++index)
        if (!strcmp(commands[index].name, line)) return commands[index].answer(rest);
    return "no such command";
}

int open_channel(void) {
    char name[32] = "ttyS1", path[48];
    argument("exo.channel", name, sizeof name);
    snprintf(path, sizeof path, "/dev/%s", name);
    int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios settings;
    if (fd < 0 || tcgetattr(fd, &settings)) return 0;
    cfmakeraw(&settings);
    cfsetspeed(&settings, B115200);
    tcsetattr(fd, TCSANOW, &settings);
    commands_in = fdopen(fd, "r");
    channel = fdopen(fcntl(fd, F_DUPFD_CLOEXEC, 0), "w");
    // Where it is the kernel's console, too, the kernel is to write there no more but why it dies.
    if (strcmp(name, "ttyS1")) klogctl(CONSOLE_LEVEL, NULL, 1);
    return commands_in && channel;
}

void answer_commands(void) {
    char line[LINE];
    while (fgets(line, sizeof line, commands_in)) {
        line[strcspn(line, "\r\n")] = 0;
        if (!*line) continue;
        const char* error = answer(line);
        if (error)
            say(".error %s\n", error);
        else
            say(".ok\n");
        fflush(channel);
    }
}
