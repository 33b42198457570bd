#include "stub/lender.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <string>

using namespace exo;
using stub::Lender;

namespace {

struct Ends {
    Ends() {
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds.data()) == 0);
        REQUIRE(::fcntl(fds[0], F_SETFL, O_NONBLOCK) == 0);
    }
    Ends(const Ends&) = delete;
    Ends& operator=(const Ends&) = delete;
    ~Ends() {
        for (const int fd : fds) ::close(fd);
    }

    [[nodiscard]] std::string read(std::size_t size) const {
        std::string bytes(size, '?');
        std::size_t done = 0;
        while (done < size) {
            const ssize_t count = ::read(fds[1], bytes.data() + done, size - done);
            if (count <= 0) break;
            done += static_cast<std::size_t>(count);
        }
        return bytes.substr(0, done);
    }

    std::array<int, 2> fds{};
};

std::string pattern(std::size_t size, unsigned seed) {
    std::string bytes(size, '\0');
    for (auto& byte : bytes) byte = static_cast<char>((seed = seed * 1103515245 + 12345) >> 16);
    return bytes;
}

}  // namespace

TEST_CASE("lender: what is lent in pieces is read as it was") {
    const Ends ends;
    const auto lender = Lender::create(ends.fds[0], 1 << 20);
    REQUIRE(lender != nullptr);
    for (unsigned round = 0; round < 3; ++round) {
        rsp::WireBuffer* const buffer = lender->take();
        REQUIRE(buffer != nullptr);
        CHECK(buffer->empty());
        const std::string bytes = pattern(100'003, round);
        std::size_t sent = 0;
        for (const std::size_t end : {std::size_t{1}, std::size_t{5000}, bytes.size()}) {
            buffer->append(std::string_view{bytes}.substr(sent, end - sent));
            CHECK(lender->lend(buffer->view().substr(sent)) == end - sent);
            sent = end;
        }
        CHECK(ends.read(bytes.size()) == bytes);
    }
}

TEST_CASE("lender: no buffer is given out again before all of the last was read") {
    const Ends ends;
    const auto lender = Lender::create(ends.fds[0], 1 << 16);
    REQUIRE(lender != nullptr);
    rsp::WireBuffer* const buffer = lender->take();
    REQUIRE(buffer != nullptr);
    const std::string bytes = pattern(9000, 1);
    buffer->append(bytes);
    REQUIRE(lender->lend(buffer->view()) == bytes.size());
    CHECK(lender->take() == nullptr);
    CHECK(ends.read(8999) == bytes.substr(0, 8999));
    CHECK(lender->take() == nullptr);
    CHECK(ends.read(1) == bytes.substr(8999));
    CHECK(lender->take() == buffer);
}

TEST_CASE("lender: a socket without room takes a part, and nothing stays behind in between") {
    const Ends ends;
    constexpr std::size_t size = 4 << 20;  // more than a socket buffers
    const auto lender = Lender::create(ends.fds[0], size);
    REQUIRE(lender != nullptr);
    rsp::WireBuffer* const buffer = lender->take();
    REQUIRE(buffer != nullptr);
    const std::string bytes = pattern(size, 2);
    buffer->append(bytes);
    const std::size_t sent = lender->lend(buffer->view());
    REQUIRE(sent > 0);
    REQUIRE(sent < size);
    CHECK(ends.read(sent) == bytes.substr(0, sent));
    CHECK(lender->lend(buffer->view().substr(sent, 100)) == 100);
    CHECK(ends.read(100) == bytes.substr(sent, 100));
}

TEST_CASE("lender: what was lent can be read when the lender is gone") {
    const Ends ends;
    auto lender = Lender::create(ends.fds[0], 1 << 16);
    REQUIRE(lender != nullptr);
    rsp::WireBuffer* const buffer = lender->take();
    REQUIRE(buffer != nullptr);
    const std::string bytes = pattern(50'000, 3);
    buffer->append(bytes);
    REQUIRE(lender->lend(buffer->view()) == bytes.size());
    lender.reset();
    CHECK(ends.read(bytes.size()) == bytes);
}

TEST_CASE("lender: a reader that went away takes nothing") {
    const Ends ends;
    const auto lender = Lender::create(ends.fds[0], 1 << 16);
    REQUIRE(lender != nullptr);
    rsp::WireBuffer* const buffer = lender->take();
    REQUIRE(buffer != nullptr);
    buffer->append(pattern(5000, 4));
    ::shutdown(ends.fds[1], SHUT_RD);
    auto* const before = std::signal(SIGPIPE, SIG_IGN);  // as the program does
    CHECK(lender->lend(buffer->view()) == 0);
    std::signal(SIGPIPE, before);
}

TEST_CASE("lender: not for TCP") {
    const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(socket >= 0);
    CHECK(Lender::create(socket, 1 << 16) == nullptr);
    ::close(socket);
}
