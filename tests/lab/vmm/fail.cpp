#include "tests/lab/vmm/fail.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace vmm {

void fail(const std::string& why) {
    std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, why.c_str());
    std::fflush(nullptr);
    _exit(1);  // other threads run: nothing of theirs is torn down under them
}

void fail_errno(const std::string& what) { fail(what + ": " + std::strerror(errno)); }

int control(int fd, unsigned long request, void* argument, const char* name) {
    int result = ioctl(fd, request, argument);
    if (result < 0) fail_errno(name);
    return result;
}

int control(int fd, unsigned long request, unsigned long argument, const char* name) {
    return control(fd, request, reinterpret_cast<void*>(argument), name);
}

}  // namespace vmm
