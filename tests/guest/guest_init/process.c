// Processes of one program (tests/guest/guest_programs).
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "guest.h"

void scenario_process(void) {
    static const char* const names[] = {"/first", "/second"};
    for (unsigned index = 0; index < sizeof names / sizeof *names; ++index) {
        if (fork()) continue;
        execl("/bin/process", "process", names[index], (char*)NULL);
        _exit(127);
    }
    sleep(1);  // their threads begin
}

// As many as the debugger has no business with, and one: exo.pause says how long each sleeps between two
// calls.
void scenario_writers(void) {
    char name[16], pause[16] = "0";
    argument("exo.pause", pause, sizeof pause);
    for (unsigned index = 0; index < 11; ++index) {
        snprintf(name, sizeof name, "/writer-%u", index);
        if (fork()) continue;
        execl("/bin/writer", "writer", name, pause, (char*)NULL);
        _exit(127);
    }
    sleep(1);
}
