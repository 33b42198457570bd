// What the parts of guest-init share; see main.c.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { MAX_CPUS = 64, LINE = 4096 };

struct spinner {
    _Alignas(64) volatile uint64_t count;
    int tid, cpu;
};
extern struct spinner spinners[MAX_CPUS];
extern int spinner_count;
extern char exo_spin_begin[], exo_spin_end[];

__attribute__((format(printf, 1, 2))) void say(const char* format, ...);
// 0 when it cannot be read; always terminated.
size_t read_file(const char* path, char* buffer, size_t size);
// The value of KEY=VALUE on the kernel command line; `value` is left alone when there is none.
void argument(const char* key, char* value, size_t size);
int pin(int cpu);
int cpu_count(void);

void scenario_spin(void);
void scenario_syscalls(void);
void scenario_threads(void);
void scenario_witness(void);
void scenario_busy(void);
void scenario_process(void);
void scenario_writers(void);
void scenario_mappings(void);
// The process of that scenario; does not return.
int be_mapper(void);

const char* answer_text(char* rest);
const char* answer_witness(char* rest);
const char* answer_calls(char* rest);
// Opens the command channel; 0 when there is none.
int open_channel(void);
// One command line at a time until the channel ends.
void answer_commands(void);
