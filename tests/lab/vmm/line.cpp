#include "tests/lab/vmm/line.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string_view>
#include <thread>
#include <utility>

#include "tests/lab/vmm/fail.h"

namespace vmm {
namespace {

int listen_at(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) fail("the socket's path is too long: " + path);
    std::memcpy(address.sun_path, path.c_str(), path.size());
    unlink(path.c_str());
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 || ::listen(fd, 1) < 0)
        fail_errno(path);
    return fd;
}

}  // namespace

Line::Line(const std::string& where) {
    constexpr std::string_view prefix = "unix:";
    if (where == "-") {
        output_ = STDOUT_FILENO;
    } else if (where.starts_with(prefix)) {
        listening_ = listen_at(where.substr(prefix.size()));
    } else {
        output_ = open(where.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (output_ < 0) fail_errno(where);
    }
}

void Line::send(uint8_t byte) {
    int fd = __atomic_load_n(&output_, __ATOMIC_SEQ_CST);
    if (fd >= 0 && write(fd, &byte, 1) < 0) return;  // the client left: serve() sees it as well
}

void Line::listen(std::function<void(uint8_t)> take) {
    if (listening_ < 0) return;
    std::thread([this, take = std::move(take)] {
        for (;;) serve(take);
    }).detach();
}

void Line::serve(const std::function<void(uint8_t)>& take) {
    int client = accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) return;
    __atomic_store_n(&output_, client, __ATOMIC_SEQ_CST);
    uint8_t bytes[256];
    for (ssize_t count; (count = read(client, bytes, sizeof bytes)) > 0;)
        for (ssize_t index = 0; index < count; ++index) take(bytes[index]);
    __atomic_store_n(&output_, -1, __ATOMIC_SEQ_CST);
    // A vCPU may be about to write there still: the number stays taken until the next client, which is
    // accepted first.
    shutdown(client, SHUT_RDWR);
    static thread_local int last = -1;
    if (last >= 0) close(last);
    last = client;
}

}  // namespace vmm
