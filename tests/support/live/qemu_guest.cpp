#include "tests/support/live/qemu_guest.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

namespace exo::test {
namespace {

std::array<char, 512> boot_sector() {
    std::array<char, 512> sector{};
    const auto put = [&](std::size_t at, std::initializer_list<int> bytes) {
        for (const int byte : bytes) sector[at++] = static_cast<char>(byte);
    };
    put(0x00, {0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xea, 0x10, 0x7c, 0x00, 0x00});
    put(0x10, {0x66, 0xff, 0x06, 0x00, 0x60, 0xe8, 0x08, 0x00, 0xeb, 0xf6});
    put(0x20, {0x66, 0xff, 0x06, 0x04, 0x60, 0xc3});
    put(510, {0x55, 0xaa});
    return sector;
}

}  // namespace

QemuGuest::QemuGuest(const std::string& accelerator, bool shared_memory, const std::vector<std::string>& more)
    : directory_("/tmp/exogdb-live-XXXXXX") {
    if (::mkdtemp(directory_.data()) == nullptr) return;
    const auto image = directory_ + "/boot.img";
    const auto sector = boot_sector();
    std::ofstream{image, std::ios::binary}.write(sector.data(), sector.size());
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
                                       "-drive",
                                       "file=" + image + ",format=raw,if=ide,readonly=off",
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
