// The kernel's log as dmesg(1) of util-linux prints it.
#pragma once

#include <span>
#include <string>

#include "os-awareness/os.h"

namespace exo::stub {

// "[    1.234567] text", the further lines of a record below the first. The guest's text cannot do anything
// to a terminal: what is not printable is \xNN.
std::string log_text(std::span<const os::LogRecord> records);

// With sequence, level, facility and caller of each record.
std::string log_json(const os::KernelLog& log);

}  // namespace exo::stub
