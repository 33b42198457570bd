// Files of the guest, as vFile names them: /proc/PID of its processes, and what its page cache has.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "stub/machine.h"

namespace exo::stub {

// Names are those of the process `pid`, in its own root; 0: of the guest's first process. A name below
// /proc/PID is that of any process of the guest. bad_address where a file is not in the guest's memory,
// not_found where there is none, or none that can be told.
Result<OpenFile> open_guest_file(Machine& machine, std::uint32_t pid, std::string_view name);
// Where the link leads; bad_request for what is none.
Result<std::string> read_guest_link(Machine& machine, std::uint32_t pid, std::string_view name);

// Bytes of what is open, as os::Processes::read_file(). No look at the guest is taken: it may run.
Result<std::size_t> read_open_file(Machine& machine, const OpenFile& file, std::uint64_t offset,
                                   MutableBytes out);
Result<std::uint64_t> size_of_open_file(Machine& machine, const OpenFile& file);

// A task of the guest by its TID, the leader of a process by its PID.
Result<os::Task> guest_task(Machine& machine, std::uint32_t tid);
// What tells the guest's processes, and why nothing does.
Result<os::Processes*> guest_processes(Machine& machine);
// The auxiliary vector of the task's process: what qXfer:auxv gives.
Result<std::string> auxv_of(Machine& machine, const os::Task& task);
// Of the text of a /proc/PID/status: what stands in that field ("Uid"), which of several (real, effective …);
// empty where it is not.
std::string_view status_value(std::string_view status, std::string_view field, std::size_t index = 0);

}  // namespace exo::stub
