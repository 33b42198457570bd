// How the small VMM and its like fail: one line on stderr, and the process ends.
#pragma once

#include <string>

namespace vmm {

// "PROGRAM: WHY", exit status 1. From any thread.
[[noreturn]] void fail(const std::string& why);

// The same with what errno says.
[[noreturn]] void fail_errno(const std::string& what);

// ioctl(2) that must not fail; returns what it returned. `name` is the request's, for the message.
int control(int fd, unsigned long request, void* argument, const char* name);
int control(int fd, unsigned long request, unsigned long argument, const char* name);

}  // namespace vmm
