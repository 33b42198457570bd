// Small files of ours that outlive the process which wrote them: journals.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/result.h"
#include "backends/host/file_descriptor.h"

namespace exo {

// /run/exogdb for root, $XDG_RUNTIME_DIR/exogdb or /tmp/exogdb-UID for others; made if it is missing, with
// mode 0700. denied if it belongs to somebody else.
Result<std::string> runtime_directory();

// All of them by their names within that directory.
// Renamed into place: a reader sees a whole file or none.
Result<void> write_runtime_file(const std::string& name, const std::string& text);
// And what processes that are gone were about to write to it.
void remove_runtime_file(const std::string& name);
struct RuntimeFile {
    std::string path;
    std::string text;
};
// Those whose names begin so and end in ".json".
std::vector<RuntimeFile> read_runtime_files(std::string_view prefix);

// The file, locked, if `is_meant` says of its text that it still is the one that is meant. Not valid if it is
// gone or another. Waits for whoever has the lock up to `limit`, then busy.
Result<FileDescriptor> lock_runtime_file(const std::string& name,
                                         const std::function<Result<bool>(const std::string&)>& is_meant,
                                         std::chrono::milliseconds limit);

// Whether the process that started at `start` (Process::start_time()) still runs; a zombie does not.
bool same_process(pid_t pid, std::uint64_t start);

}  // namespace exo
