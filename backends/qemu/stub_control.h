// Starting and stopping QEMU's own gdb stub by its monitor.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/qemu/monitor.h"

namespace exo::qemu {

// What `query-chardev` says of the chardev "gdb", which is what QEMU's stub hangs on.
struct StubDevice {
    std::string device;      // as the HMP command gdbserver takes it: "tcp:127.0.0.1:1234,server=on,wait=off"
    bool connected = false;  // a client is there
};

// One row of query-chardev. Nothing if it is not the stub's.
std::optional<StubDevice> parse_stub_device(std::string_view label, std::string_view filename);
// Directory of the unix socket of a chardev that QEMU listens on, empty if it is none.
std::string socket_directory(std::string_view filename);

struct Chardevs {
    std::optional<StubDevice> stub;
    std::vector<std::string> socket_directories;  // those of monitors first
};
Result<Chardevs> query_chardevs(Monitor& monitor);
// busy: QEMU's stub takes one client, and has it.
std::optional<Error> client_of_stub(const Chardevs& chardevs);

// `query-status`: "running", "paused", "prelaunch", "shutdown" …
struct RunState {
    std::string name;
    bool running = false;
};
Result<RunState> query_run_state(Monitor& monitor);

// A socket that QEMU can create and nobody but its user and root can open.
struct StubPlace {
    std::string path;
    std::string directory;  // made for it, to be removed after use; empty if it was there
};

// Opens the stub at the first of the places where QEMU's sandbox lets it, and says which one it was: beside
// its monitor's socket, else in a directory of its own. `announce` is called with each place before QEMU
// hears of it.
Result<StubPlace> start_stub(Monitor& monitor, const Process& process, const Chardevs& chardevs,
                             const std::function<Result<void>(const StubPlace&)>& announce);

// Closes the stub and removes its socket. Succeeds if there is none.
Result<void> stop_stub(Monitor& monitor, const std::string& path, const std::string& directory);
Result<void> restore_user_stub(Monitor& monitor, const std::string& device);

}  // namespace exo::qemu
