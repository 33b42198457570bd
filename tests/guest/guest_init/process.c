// Two processes of one program (tests/guest/guest_programs/process.c).
#define _GNU_SOURCE
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
