// A client that does nothing but wait: what a GDB server is asked for here costs the server's time and the
// wire's.
//
//     rsp_bench SOCKET WORKLOAD…
//
// SOCKET is the path of a unix socket. Workloads, in their order over one connection:
//     x:ADDRESS:BYTES[:TIMES]  memory by binary packets, as large as the server takes, so many times over;
//                        decoded afterwards
//     m:ADDRESS:BYTES[:TIMES]  the same in hex
//     read8:ADDRESS:N    N times 8 bytes by `m`
//     g:N                N times all registers
//     stop:N             N times: resume, let it run, then from ^C to the stop reply
//     step:N             N steps of the thread that stopped last
// For each a line "NAME NANOSECONDS OPERATIONS CRC"; CRC is of the memory that was read, else 0. One that the
// server does not know is "NAME unsupported".
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "rsp/client.h"
#include "rsp/hex.h"
#include "rsp/stop_reply.h"
#include "tests/bench/arguments.h"

namespace {

using namespace std::chrono_literals;
using exo::bench::die;
using exo::bench::number;
using exo::rsp::Client;
using Clock = std::chrono::steady_clock;

constexpr std::size_t read_size = std::size_t{1} << 20U;
constexpr std::size_t longest_reply = std::size_t{1} << 24U;
// Long enough that the guest's vCPUs are well in their loop when ^C comes, on an emulated machine too.
constexpr auto run_time = 50ms;

class Link {
public:
    explicit Link(const std::string& path) : client_(longest_reply), buffer_(read_size) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (path.size() >= sizeof address.sun_path) die("the path of the socket is too long");
        std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
        fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd_ < 0 || ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
            die(path + ": " + std::strerror(errno));
        send("qSupported:swbreak+;hwbreak+;vContSupported+;binary-upload+");
        std::string supported = receive();
        // QEMU's stub tells uninvited that connecting has stopped the guest.
        while (exo::rsp::parse_stop_reply(supported)) supported = receive();
        features_ = exo::rsp::ServerFeatures::parse(supported);
        ask("Qqemu.PhyMemMode:0");  // QEMU keeps what its last client has set
        if (features_.no_ack && ask("QStartNoAckMode") == "OK") client_.stop_acks();
    }
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;
    ~Link() { ::close(fd_); }

    std::string ask(std::string_view payload) {
        send(payload);
        return receive();
    }
    void send(std::string_view payload) {
        client_.send(payload);
        flush();
    }
    // The bytes of one reply as they came, framed and escaped. decode() takes them, in their order, later:
    // what it costs is not the server's.
    std::string_view ask_raw(std::string_view payload, std::span<char> into) {
        send(payload);
        std::size_t size = 0;
        for (;;) {
            if (size == into.size()) die("a reply that is longer than it can be");
            const ssize_t count = ::read(fd_, into.data() + size, into.size() - size);
            if (count <= 0) die("the server has closed the connection");
            size += static_cast<std::size_t>(count);
            // A payload has no '#', and nothing follows a reply: looking here is enough to find the end.
            if (size >= 3 && into[size - 3] == '#') break;
        }
        if (!features_.no_ack) write_all("+");
        return {into.data(), size};
    }
    std::string decode(std::string_view wire) {
        client_.feed(wire);
        for (;;) {
            auto event = client_.next();
            client_.take_output();  // the acknowledgement, which was sent
            if (!event || event->kind == Client::Event::Kind::broken) die("the server sends garbage");
            if (event->kind == Client::Event::Kind::packet) return std::move(event->payload);
        }
    }
    void interrupt() {
        client_.send_interrupt();
        flush();
    }
    std::string receive() {
        for (;;) {
            if (auto event = client_.next()) {
                flush();  // its acknowledgement
                if (event->kind == Client::Event::Kind::broken) die("the server sends garbage");
                if (event->kind == Client::Event::Kind::packet) return std::move(event->payload);
                continue;
            }
            const ssize_t count = ::read(fd_, buffer_.data(), buffer_.size());
            if (count <= 0) die("the server has closed the connection");
            client_.feed({buffer_.data(), static_cast<std::size_t>(count)});
        }
    }
    [[nodiscard]] std::size_t packet_size() const {
        return std::max<std::size_t>(features_.packet_size, 1024);
    }

private:
    void flush() { write_all(client_.take_output()); }
    void write_all(std::string_view rest) {
        while (!rest.empty()) {
            const ssize_t count = ::write(fd_, rest.data(), rest.size());
            if (count <= 0) die("the server has closed the connection");
            rest.remove_prefix(static_cast<std::size_t>(count));
        }
    }

    int fd_ = -1;
    Client client_;
    exo::rsp::ServerFeatures features_;
    std::vector<char> buffer_;
};

struct Workload {
    std::string_view name;
    std::uint64_t address = 0;
    std::uint64_t count = 0;
    std::uint64_t times = 1;
};

struct Result {
    std::chrono::nanoseconds time{};
    std::uint64_t operations = 0;
    std::uint32_t crc = 0;
    bool supported = true;
};

std::string read_request(char letter, std::uint64_t address, std::uint64_t length) {
    std::string request{letter};
    exo::rsp::append_hex_number(request, address);
    request += ',';
    exo::rsp::append_hex_number(request, length);
    return request;
}

// The bytes of a reply to x or m.
std::string memory_in(std::string reply, bool binary) {
    if (binary) {
        if (!reply.starts_with('b')) die("reply to x: " + reply.substr(0, 80));
        return reply.erase(0, 1);
    }
    const auto digits = exo::rsp::from_hex(reply);
    if (!digits || exo::rsp::error_text(reply)) die("reply to m: " + reply.substr(0, 80));
    return {reinterpret_cast<const char*>(digits->data()), digits->size()};
}

Result read_memory(Link& link, const Workload& work, bool binary) {
    const std::size_t most = binary ? link.packet_size() - 1 : link.packet_size() / 2;
    if (binary && link.ask(read_request('x', work.address, 1)).empty()) return {.supported = false};
    std::vector<std::string_view> replies;
    // Written to before the clock starts: the kernel has given the pages. A byte is two on the wire at most.
    std::vector<char> wire(2 * work.count + (work.count / most + 1) * 64, 1);
    const auto begin = Clock::now();
    for (std::uint64_t i = 0; i < work.times; ++i) {
        replies.clear();
        std::span<char> free{wire};
        for (std::uint64_t done = 0; done < work.count; done += most) {
            const std::uint64_t want = std::min<std::uint64_t>(work.count - done, most);
            const std::string request = read_request(binary ? 'x' : 'm', work.address + done, want);
            replies.push_back(link.ask_raw(request, free));
            free = free.subspan(replies.back().size());
        }
    }
    const auto time = Clock::now() - begin;
    std::string memory;
    for (const auto reply : replies) memory += memory_in(link.decode(reply), binary);
    if (memory.size() != work.count) die("the server sent less than it was asked for");
    return {time, work.count * work.times, exo::rsp::crc32(0xffffffff, memory)};
}

Result repeat(Link& link, const std::string& request, std::uint64_t count) {
    const auto begin = Clock::now();
    for (std::uint64_t i = 0; i < count; ++i) {
        if (link.ask(request).starts_with('E')) die(request + " fails");
    }
    return {Clock::now() - begin, count};
}

exo::rsp::StopReply stop_reply(const std::string& payload) {
    auto reply = exo::rsp::parse_stop_reply(payload);
    if (!reply || reply->kind != exo::rsp::StopReply::Kind::stopped)
        die("no stop reply: " + payload.substr(0, 80));
    return std::move(*reply);
}

Result stop(Link& link, std::uint64_t count) {
    std::chrono::nanoseconds total{};
    for (std::uint64_t i = 0; i < count; ++i) {
        link.send("vCont;c");
        std::this_thread::sleep_for(run_time);
        const auto begin = Clock::now();
        link.interrupt();
        stop_reply(link.receive());
        total += Clock::now() - begin;
    }
    return {total, count};
}

Result step(Link& link, std::uint64_t count) {
    auto last = stop_reply(link.ask("?"));
    const auto begin = Clock::now();
    for (std::uint64_t i = 0; i < count; ++i) {
        std::string request = "vCont;s:";
        exo::rsp::append_thread_id(request, last.thread, false);
        last = stop_reply(link.ask(request));
    }
    return {Clock::now() - begin, count};
}

Workload parse(std::string_view text) {
    std::vector<std::string_view> fields;
    for (std::size_t at = 0; at <= text.size();) {
        const auto end = std::min(text.find(':', at), text.size());
        fields.push_back(text.substr(at, end - at));
        at = end + 1;
    }
    switch (fields.size()) {
        case 2: return {.name = fields[0], .count = number(fields[1])};
        case 3: return {.name = fields[0], .address = number(fields[1]), .count = number(fields[2])};
        case 4:
            return {.name = fields[0],
                    .address = number(fields[1]),
                    .count = number(fields[2]),
                    .times = number(fields[3])};
        default: die("no workload: " + std::string{text});
    }
}

Result run(Link& link, const Workload& work) {
    if (work.name == "x") return read_memory(link, work, true);
    if (work.name == "m") return read_memory(link, work, false);
    if (work.name == "read8") return repeat(link, read_request('m', work.address, 8), work.count);
    if (work.name == "g") return repeat(link, "g", work.count);
    if (work.name == "stop") return stop(link, work.count);
    if (work.name == "step") return step(link, work.count);
    die("no such workload: " + std::string{work.name});
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 3) die("usage: rsp_bench SOCKET WORKLOAD…");
    Link link{arguments[1]};
    stop_reply(link.ask("?"));
    for (int i = 2; i < count; ++i) {
        const Workload work = parse(arguments[i]);
        const Result result = run(link, work);
        const std::string name{work.name};
        if (!result.supported) {
            std::printf("%s unsupported\n", name.c_str());
            continue;
        }
        std::printf("%s %lld %llu %08x\n", name.c_str(), static_cast<long long>(result.time.count()),
                    static_cast<unsigned long long>(result.operations), result.crc);
    }
    link.ask("D");
    return 0;
}
