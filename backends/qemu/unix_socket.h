// Unix stream sockets with deadlines.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "backends/api/result.h"
#include "backends/host/file_descriptor.h"

namespace exo::qemu {

using Clock = std::chrono::steady_clock;

// Milliseconds until `deadline` for poll(), rounded up, 0 when it has passed.
int milliseconds_until(Clock::time_point deadline);

// Non-blocking and close-on-exec. not_found, denied or busy (the listener's queue is full), else backend;
// the message names the path. Paths longer than sun_path are reached through /proc/self/fd.
Result<FileDescriptor> connect_unix(const std::string& path);

// All of `bytes`, or timed_out, or target_gone when the peer has closed.
Result<void> write_all(int fd, std::string_view bytes, Clock::time_point deadline);

// What there is to read, appended to `out`: false when nothing came until `deadline`. target_gone at the end
// of the stream.
Result<bool> read_available(int fd, std::string& out, Clock::time_point deadline);

}  // namespace exo::qemu
