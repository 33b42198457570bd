// Tables of `info os` (GDB manual, "Operating System Information"), as XML.
#pragma once

#include <string>

#include "stub/machine.h"
#include "stub/thread_map.h"

namespace exo::stub {

std::string osdata_types();  // of the others
// Of processes or of threads: what is in `map` now. A process' command has its arguments, and its user a
// name, where the guest's memory has them.
std::string osdata_tasks(Machine& machine, const ThreadMap& map, bool processes);
// Columns as of a native Linux target (gdb/nat/linux-osdata.c).
std::string osdata_files(Machine& machine);    // what each process has open
std::string osdata_modules(Machine& machine);  // what the kernel has loaded

}  // namespace exo::stub
