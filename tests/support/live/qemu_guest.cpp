#include "tests/support/live/qemu_guest.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

namespace exo::test {
namespace {

// 64 KiB that QEMU maps at 0xf0000 and below 4 GiB: the CPU starts in its last 16 bytes.
std::vector<char> firmware() {
    std::vector<char> image(0x10000);
    const auto put = [&](std::size_t at, std::initializer_list<int> bytes) {
        for (const int byte : bytes) image[at++] = static_cast<char>(byte);
    };
    // cli; cld; ds = 0xf000; es = 0; copy 0x100 words from ds:0x100 to es:0x7c00; ljmp 0:0x7c00
    put(0x000, {0xfa, 0xfc, 0xb8, 0x00, 0xf0, 0x8e, 0xd8, 0x31, 0xc0, 0x8e, 0xc0, 0xbe, 0x00, 0x01,
                0xbf, 0x00, 0x7c, 0xb9, 0x00, 0x01, 0xf3, 0xa5, 0xea, 0x00, 0x7c, 0x00, 0x00});
    // 7c00: ds = ss = 0; sp = 0x7c00; ljmp 0:0x7c10
    put(0x100, {0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xea, 0x10, 0x7c, 0x00, 0x00});
    // 7c10: incl 0x6000; call 0x7c20; jmp 0x7c10
    put(0x110, {0x66, 0xff, 0x06, 0x00, 0x60, 0xe8, 0x08, 0x00, 0xeb, 0xf6});
    // 7c20: incl 0x6004; ret
    put(0x120, {0x66, 0xff, 0x06, 0x04, 0x60, 0xc3});
    put(0x140, {0x90});
    put(0xfff0, {0xea, 0x00, 0x00, 0x00, 0xf0});  // ljmp 0xf000:0
    return image;
}

}  // namespace

QemuGuest::QemuGuest(const std::string& accelerator, bool shared_memory, const std::vector<std::string>& more)
    : directory_("/tmp/exogdb-live-XXXXXX") {
    if (::mkdtemp(directory_.data()) == nullptr) return;
    const auto path = directory_ + "/firmware.bin";
    const auto image = firmware();
    std::ofstream{path, std::ios::binary}.write(image.data(), static_cast<std::streamsize>(image.size()));
    std::vector<std::string> arguments{"qemu-system-x86_64",
                                       "-machine",
                                       "pc,memory-backend=ram",
                                       "-accel",
                                       accelerator,
                                       "-cpu",
                                       "qemu64",
                                       "-smp",
                                       "2",
                                       "-m",
                                       "64M",
                                       "-nodefaults",
                                       "-no-user-config",
                                       "-display",
                                       "none",
                                       "-object",
                                       shared_memory ? "memory-backend-memfd,id=ram,size=64M,share=on"
                                                     : "memory-backend-ram,id=ram,size=64M",
                                       "-bios",
                                       path,
                                       "-qmp",
                                       "unix:" + qmp_socket() + ",server=on,wait=off",
                                       "-qmp",
                                       "unix:" + second_qmp_socket() + ",server=on,wait=off"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    std::vector<char*> argv;
    for (auto& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    const pid_t child = ::fork();
    if (child == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        const int log = ::open((directory_ + "/qemu.log").c_str(), O_WRONLY | O_CREAT, 0600);
        ::dup2(log, 1);
        ::dup2(log, 2);
        ::execvp(argv[0], argv.data());
        ::_exit(127);
    }
    pid_ = child;
    for (int i = 0; i < 600; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds{100});
        struct stat status{};
        if (::stat(second_qmp_socket().c_str(), &status) == 0) return;
        if (::waitpid(child, nullptr, WNOHANG) == child) break;
    }
    pid_ = 0;
}

void QemuGuest::kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
}

QemuGuest::~QemuGuest() {
    kill();
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
}

}  // namespace exo::test
