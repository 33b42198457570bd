// What `exogdb info` and `ps` print, for people; `monitor info` and `monitor ps` are the same.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "os-awareness/os.h"
#include "stub/machine.h"

namespace exo::stub {

// One line a task: TID TGID STATE CPU COMM, kernel threads in brackets, idle tasks last.
std::string tasks_table(const os::OsAwareness& os);
// One line a module: NAME SIZE USERS ADDRESS, as lsmod(8) in its order.
std::string modules_table(std::span<const os::Module> modules);
// One line a finding; what was looked for and what failed where no OS is recognised.
std::string info_text(Machine& machine);

// As the kernel writes it: "schedule+0x2d", "fat_fill_super+0x10 [fat]".
std::string place_text(const os::Place& place);
using Locate = std::function<std::optional<os::Place>(VirtualAddress)>;
// One line a frame: "#1  0xffffffff81234567 schedule+0x2d"; a line more where it breaks off.
std::string backtrace_text(const os::Backtrace& trace, const Locate& locate);

// A kernel thread's in brackets, as ps prints it.
std::string shown_name(const os::Task& task);
// With spaces to at least `width`.
std::string pad(std::string text, std::size_t width);

// The same as JSON.
std::string tasks_json(const os::OsAwareness& os);
std::string info_json(Machine& machine);

}  // namespace exo::stub
