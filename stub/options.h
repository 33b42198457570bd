// The command line.
#pragma once

#include <string>
#include <vector>

#include "backends/registry.h"
#include "os-awareness/os.h"
#include "stub/server.h"

namespace exo::stub {

enum class Command : std::uint8_t { none, list, serve, info, ps, dmesg, doctor, recover, symbols, guard };

struct Options {
    Command command = Command::none;
    std::string target;
    OpenOptions open;
    bool json = false;
    std::string output;   // of symbols
    std::string vmlinux;  // of the user's
    os::Choice os = os::Choice::automatic;
    std::string log_level = "warning";
    std::vector<std::string> listen;
    ServerOptions server;
};

// Exit statuses of every command.
enum ExitStatus : int { exit_done = 0, exit_failed = 1, exit_usage = 2 };

// Parses into `options`. Returns an exit status where the program is to end at once: after --help, --version
// or
// --list-packets (printed), or on wrong usage (said in one line on stderr). -1: go on.
int parse_options(int argc, char** argv, Options& options);

}  // namespace exo::stub
