// Tables of `info os` beside those of tasks (GDB manual, "Operating System Information"), as XML.
#pragma once

#include <string>

#include "stub/machine.h"

namespace exo::stub {

// Columns as of a native Linux target (gdb/nat/linux-osdata.c).
std::string osdata_files(Machine& machine);    // what each process has open
std::string osdata_modules(Machine& machine);  // what the kernel has loaded

}  // namespace exo::stub
