// Errors are values: a closed code that says what to do, and a message that says where and why.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace exo {

enum class Errc : std::uint8_t {
    bad_request,     // malformed input from the client or the command line
    bad_address,     // not mapped, a hole, or MMIO that is not read for its side effects
    no_such_thread,  // a thread, task or vCPU that is not (or no longer) there
    denied,          // permissions: the message names the cause and the remedy
    no_free_slot,    // all debug registers are taken
    timed_out,
    busy,         // somebody else holds it: another gdb client, another tracer, a port
    not_found,    // no such domain, symbol, file
    bad_data,     // guest memory that contradicts itself
    unsupported,  // this machine or hypervisor cannot do it, in any session
    backend,      // the hypervisor refused or failed
    target_gone,  // the guest was destroyed; the only code that ends a session
};

std::string_view to_string(Errc code);

struct Error {
    Errc code{};
    std::string message;  // one line, no trailing full stop: "what failed: why; what to do"

    // "reading the task list: " put before the message, as an error travels up.
    Error with_context(std::string_view context) && {
        message.insert(0, ": ").insert(0, context);
        return std::move(*this);
    }
};

}  // namespace exo
