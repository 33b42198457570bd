#include "stub/lender.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>

namespace exo::stub {
namespace {

// As much as the kernel allows to users by default (pipe(7), pipe-max-size); a piece of a reply is smaller.
constexpr int pipe_room = 1 << 20;

bool is_unix_stream(int socket) {
    int domain = 0;
    socklen_t size = sizeof domain;
    return ::getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

}  // namespace

std::unique_ptr<Lender> Lender::create(int socket, std::size_t room) {
    if (!is_unix_stream(socket)) return nullptr;
    std::array<int, 2> pipe{};
    if (::pipe2(pipe.data(), O_CLOEXEC | O_NONBLOCK) != 0) return nullptr;
    ::fcntl(pipe[1], F_SETPIPE_SZ, pipe_room);
    void* const pages = ::mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        for (const int end : pipe) ::close(end);
        return nullptr;
    }
    return std::unique_ptr<Lender>{new Lender(socket, pipe, static_cast<char*>(pages), room)};
}

Lender::Lender(int socket, std::array<int, 2> pipe, char* pages, std::size_t room)
    : socket_(socket), pipe_(pipe), pages_(pages), room_(room), buffer_(pages, room) {}

// Whoever has the pages keeps them: nothing is written to them any more.
Lender::~Lender() {
    for (const int end : pipe_) ::close(end);
    ::munmap(pages_, room_);
}

// What a unix socket has sent counts until it was read (unix_outq_len(), net/unix/af_unix.c).
rsp::WireBuffer* Lender::take() {
    int unread = 0;
    if (::ioctl(socket_, SIOCOUTQ, &unread) != 0 || unread != 0) return nullptr;
    buffer_ = rsp::WireBuffer{pages_, room_};
    return &buffer_;
}

std::size_t Lender::lend(std::string_view bytes) {
    std::size_t sent = 0;
    while (sent < bytes.size()) {
        const auto rest = bytes.substr(sent);
        const iovec piece{const_cast<char*>(rest.data()), rest.size()};
        const ssize_t count = ::vmsplice(pipe_[1], &piece, 1, SPLICE_F_NONBLOCK);
        if (count <= 0) break;
        const std::size_t passed = pass_on(static_cast<std::size_t>(count));
        sent += passed;
        if (passed < static_cast<std::size_t>(count)) break;
    }
    return sent;
}

// What the socket does not take is taken out of the pipe again: it will be written as anything else is.
std::size_t Lender::pass_on(std::size_t count) {
    std::size_t done = 0;
    while (done < count) {
        const ssize_t moved = ::splice(pipe_[0], nullptr, socket_, nullptr, count - done, SPLICE_F_NONBLOCK);
        if (moved <= 0) break;
        done += static_cast<std::size_t>(moved);
    }
    std::array<char, 4096> dropped{};
    for (std::size_t left = count - done; left > 0;) {
        const ssize_t taken = ::read(pipe_[0], dropped.data(), std::min(left, dropped.size()));
        if (taken <= 0) break;
        left -= static_cast<std::size_t>(taken);
    }
    return done;
}

}  // namespace exo::stub
