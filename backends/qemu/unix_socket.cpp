#include "backends/qemu/unix_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace exo::qemu {
namespace {

Error connect_error(const std::string& path, int error) {
    switch (error) {
        case ENOENT:
            return {Errc::not_found,
                    "no socket " + path + ": is QEMU running, and is that the path of its -qmp?"};
        case ECONNREFUSED:
            return {Errc::not_found,
                    "socket " + path + " is refused: nobody listens there, QEMU has probably ended"};
        case ENOTSOCK: return {Errc::not_found, path + " is not a socket"};
        case EACCES:
        case EPERM:
            return {Errc::denied, "socket " + path + ": permission denied; run as QEMU's user or as root"};
        case EAGAIN: return {Errc::busy, "socket " + path + " is in use: it takes one client at a time"};
        default: return {Errc::backend, "socket " + path + ": " + std::strerror(error)};
    }
}

}  // namespace

int milliseconds_until(Clock::time_point deadline) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    return static_cast<int>(std::clamp<long long>(left, 0, 3'600'000));
}

Result<FileDescriptor> connect_unix(const std::string& path) {
    FileDescriptor socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (!socket.valid()) return fail(Errc::backend, std::string{"socket: "} + std::strerror(errno));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::string short_path = path;
    FileDescriptor directory;
    if (path.size() >= sizeof address.sun_path) {
        const auto slash = path.rfind('/');
        if (slash != std::string::npos && slash > 0) {
            directory =
                FileDescriptor{::open(path.substr(0, slash).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)};
            if (!directory.valid()) return fail(connect_error(path, errno));
            short_path = "/proc/self/fd/" + std::to_string(directory.get()) + path.substr(slash);
        }
        if (short_path.size() >= sizeof address.sun_path)
            return fail(Errc::bad_request, "socket " + path + ": the name is too long");
    }
    std::memcpy(address.sun_path, short_path.c_str(), short_path.size() + 1);
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return fail(connect_error(path, errno));
    return socket;
}

Result<void> write_all(int fd, std::string_view bytes, Clock::time_point deadline) {
    while (!bytes.empty()) {
        const auto count = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (count >= 0) {
            bytes.remove_prefix(static_cast<std::size_t>(count));
            continue;
        }
        if (errno == EINTR) continue;
        if (errno != EAGAIN)
            return fail(Errc::target_gone, std::string{"QEMU's socket: "} + std::strerror(errno));
        pollfd poll_fd{fd, POLLOUT, 0};
        if (::poll(&poll_fd, 1, milliseconds_until(deadline)) == 0)
            return fail(Errc::timed_out, "QEMU does not read its socket");
    }
    return {};
}

Result<bool> read_available(int fd, std::string& out, Clock::time_point deadline) {
    char buffer[65536];
    for (;;) {
        const auto count = ::recv(fd, buffer, sizeof buffer, 0);
        if (count > 0) {
            out.append(buffer, static_cast<std::size_t>(count));
            return true;
        }
        if (count == 0) return fail(Errc::target_gone, "QEMU has closed its socket");
        if (errno == EINTR) continue;
        if (errno != EAGAIN)
            return fail(Errc::target_gone, std::string{"QEMU's socket: "} + std::strerror(errno));
        pollfd poll_fd{fd, POLLIN, 0};
        const int wait = milliseconds_until(deadline);
        if (wait == 0 || ::poll(&poll_fd, 1, wait) == 0) return false;
    }
}

}  // namespace exo::qemu
