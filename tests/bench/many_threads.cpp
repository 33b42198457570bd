// The peer's inferior for `info threads`: a process with as many sleeping threads as the guest has tasks.
#include <charconv>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>

#include <pthread.h>
#include <unistd.h>

namespace {

[[noreturn]] void sleep_for_ever() {
    for (;;) ::pause();
}

}  // namespace

int main(int count, char** arguments) {
    int threads = 0;
    if (count != 2 ||
        std::from_chars(arguments[1], arguments[1] + std::strlen(arguments[1]), threads).ec != std::errc{}) {
        std::fputs("usage: many_threads COUNT\n", stderr);
        return 2;
    }
    for (int index = 1; index < threads; ++index) {
        std::thread worker{sleep_for_ever};
        ::pthread_setname_np(worker.native_handle(), ("worker-" + std::to_string(index)).c_str());
        worker.detach();
    }
    std::puts("ready");
    std::fflush(stdout);
    sleep_for_ever();
}
