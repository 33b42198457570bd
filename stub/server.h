// Listens, and serves one client at a time until told to stop; with lldb's platform beside it, which never
// has the guest.
#pragma once

#include <cstdint>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "backends/api/result.h"
#include "stub/session.h"

namespace exo::stub {

class TargetThread;

struct TcpEndpoint {
    std::string host;
    std::uint16_t port = 0;
};
struct UnixEndpoint {
    std::string path;
};
using Endpoint = std::variant<TcpEndpoint, UnixEndpoint>;

// "127.0.0.1:1234", ":1234" (loopback), "[::1]:1234", "unix:/run/x.sock".
Result<Endpoint> parse_endpoint(const std::string& text);

struct ServerOptions {
    std::vector<Endpoint> listen;
    bool standard_streams = false;  // --stdio: stdin and stdout are the client
    bool once = false;              // the first client is the last
    std::string record;             // file for a transcript of all packets, empty for none
    std::string wait_for;           // --wait: the program that has to begin first, empty for none
    SessionOptions session;
};

// Returns when the last client that `options` allow has gone, the guest is gone, or SIGINT or SIGTERM came.
// Prints "listening on …" on stdout for each endpoint once clients can connect. In every case the guest is as
// it was found. With `wait_for` that is when such a program has begun; clients have its process then.
Result<void> serve(Machine& machine, TargetThread& target_thread, const ServerOptions& options);

}  // namespace exo::stub
