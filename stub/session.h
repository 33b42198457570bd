// What one client can see and change. No I/O: packets in, replies out, so transcripts need no socket.
//
// All calls come from the target thread, one at a time. While the guest runs (dispatch() answered
// Reply::Kind::resumed) the caller loops over poll_stop() until it gives the stop reply; a packet that
// arrives meanwhile goes to dispatch() too, and the packet table says which are allowed.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/target.h"
#include "rsp/requests.h"
#include "stub/machine.h"
#include "stub/reply.h"
#include "stub/run_control.h"
#include "stub/thread_map.h"

namespace exo::stub {

struct SessionOptions {
    bool threads_are_vcpus = false;  // --threads vcpus
    std::size_t packet_size = 1U << 20U;
};

class Session {
public:
    Session(Machine& machine, SessionOptions options);

    // Stops the guest: a client is there.
    Result<void> open();
    // The client went away, in whatever state: breakpoints out, the guest as it was found. Idempotent.
    Result<void> close();

    // `payload` is unescaped. Never fails: every packet has a reply, if only the empty one.
    Reply dispatch(std::string_view payload);
    // The stop reply once the guest has stopped, nothing within `limit`.
    std::optional<Reply> poll_stop(std::chrono::milliseconds limit);
    [[nodiscard]] bool running() const { return running_; }

    // State that handlers (stub/handlers/*.cpp) read and write.
    Machine& machine;
    SessionOptions options;
    RunControl run_control;
    rsp::ClientFeatures client;
    bool extended = false;
    bool thread_suffix = false;            // QThreadSuffixSupported: g, G, p, P carry the thread
    bool list_threads_in_stop = false;     // QListThreadsInStopReply
    bool error_strings = false;            // QEnableErrorStrings (lldb)
    bool physical_memory_mode = false;     // Qqemu.PhyMemMode
    bool is_lldb = false;
    std::optional<ThreadKey> general_thread;  // Hg
    std::optional<ThreadKey> continue_thread;  // Hc; nothing is all
    std::string threads_xml;  // kept while a client reads it in slices

private:
    bool running_ = false;
    bool open_ = false;
};

}  // namespace exo::stub
