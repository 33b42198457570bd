#include "stub/client.h"

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <future>
#include <thread>

#include "rsp/hex.h"
#include "tests/support/fake_machine.h"

using namespace exo;
using namespace exo::stub;
using exo::test::FakeMachine;
using exo::test::Log;

namespace {

constexpr int patience_ms = 20000;

std::string packet(std::string_view payload) {
    std::string bytes;
    rsp::append_packet(bytes, payload);
    return bytes;
}

// With a target that is bound to its thread, and with one that is not.
#define BOTH_WAYS(name) TEST_CASE_TEMPLATE(name, T, std::true_type, std::false_type)

// A Client as the server has it: its I/O in one thread, the target's in another; the test is the debugger.
struct Debugged {
    explicit Debugged(bool bound, SessionOptions options = {}) : fake({.bound_to_thread = bound}) {
        std::array<int, 2> ends{};
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) == 0);
        socket = ends[0];
        Connection::Socket theirs{context, asio::generic::stream_protocol{AF_UNIX, 0}, ends[1]};
        client = std::make_shared<Client>(Connection{std::move(theirs)}, *fake.machine, target_thread,
                                          options, context.get_executor(), nullptr);
    }
    ~Debugged() {
        hang_up();
        if (io.joinable()) io.join();
    }

    void start() {
        asio::post(context, [this] {
            client->start([this](bool gone) {
                guest_gone = gone;
                ++ended;
            });
        });
        io = std::thread{[this] { context.run(); }};
    }
    void send(std::string_view bytes) const {
        REQUIRE(::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
                static_cast<ssize_t>(bytes.size()));
    }
    // As many bytes, or what came before the connection ended.
    [[nodiscard]] std::string receive(std::size_t size) {
        while (inbox.size() < size && fill_inbox()) {
        }
        const auto bytes = inbox.substr(0, size);
        inbox.erase(0, size);
        return bytes;
    }
    void check_received(const std::string& expected) { CHECK(receive(expected.size()) == expected); }
    // Its payload.
    [[nodiscard]] std::string receive_packet() {
        std::size_t end = std::string::npos;
        while ((end = inbox.find('#')) == std::string::npos || end + 3 > inbox.size()) {
            if (!fill_inbox()) return "(no packet)";
        }
        return receive(end + 3).substr(1, end - 1);
    }
    [[nodiscard]] bool fill_inbox() {
        pollfd waiting{socket, POLLIN, 0};
        std::array<char, 65536> buffer{};
        if (::poll(&waiting, 1, patience_ms) != 1) return false;
        const auto count = ::recv(socket, buffer.data(), buffer.size(), 0);
        if (count > 0) inbox.append(buffer.data(), static_cast<std::size_t>(count));
        return count > 0;
    }
    void start_without_acks() {
        start();
        send(packet("QStartNoAckMode"));
        check_received("+" + packet("OK"));
        send("+");
    }
    // Once the session has nothing to do, by the threads that it runs in.
    template <class Function>
    void in_between(Function function) {
        std::promise<void> done;
        asio::post(context, [&] {
            target_thread.call([&] { return function(), true; });
            done.set_value();
        });
        done.get_future().wait();
    }
    void hang_up() {
        if (socket >= 0) ::close(std::exchange(socket, -1));
    }
    void wait_for_end() {
        io.join();  // nothing is left to do
        CHECK(ended == 1);
    }

    FakeMachine fake;
    TargetThread target_thread;
    asio::io_context context;
    std::shared_ptr<Client> client;
    int socket = -1;
    std::string inbox;  // received, not looked at
    std::thread io;
    std::atomic<int> ended{0};
    bool guest_gone = false;
};

BOTH_WAYS("packets are acknowledged while the guest is still being stopped") {
    Debugged d{T::value};
    std::promise<void> acknowledged;
    d.fake.target->in_next_attach([&] { acknowledged.get_future().wait(); });
    d.start();
    d.send(packet("vMustReplyEmpty"));
    d.check_received("+");
    d.send("-");  // gdb's, when it has waited for two seconds
    acknowledged.set_value();
    d.check_received(packet(""));
    Log log;
    d.in_between([&] { log = d.fake.target->take_log(); });
    CHECK(log == Log{"attach"});
}

BOTH_WAYS("packets that come together are answered in their order") {
    Debugged d{T::value};
    d.start_without_acks();
    d.send(packet("qC") + packet("vMustReplyEmpty") + packet("QThreadSuffixSupported"));
    CHECK(d.receive_packet().starts_with("QC"));
    CHECK(d.receive_packet().empty());
    CHECK(d.receive_packet() == "OK");
}

BOTH_WAYS("no packet is lost, however many come one behind the other") {
    Debugged d{T::value};
    d.start_without_acks();
    for (int i = 0; i < 3000; ++i) {
        d.send(packet("qC"));
        REQUIRE(d.receive_packet().starts_with("QC"));
    }
}

BOTH_WAYS("a ^C right behind a resume stops the guest") {
    Debugged d{T::value};
    d.start_without_acks();
    d.send(packet("vCont;c") + "\x03");
    CHECK(d.receive_packet().starts_with("T02"));
    // Also with a packet between them that waits for the stop.
    d.send(packet("vCont;c") + packet("qC") + "\x03");
    CHECK(d.receive_packet().starts_with("T02"));
    CHECK(d.receive_packet().starts_with("QC"));
    d.send(packet("vCont;c"));
    d.send("\x03");
    CHECK(d.receive_packet().starts_with("T02"));
}

BOTH_WAYS("a ^C of the next run, sent as soon as the stop of this one is told, is not lost") {
    Debugged d{T::value};
    d.start_without_acks();
    d.send(packet("vCont;c"));
    for (int i = 0; i < 500; ++i) {
        d.send(i == 0 ? "\x03" : packet("vCont;c") + "\x03");
        REQUIRE(d.receive_packet().starts_with("T02"));
    }
}

BOTH_WAYS("a ^C that comes too late stops nothing") {
    Debugged d{T::value};
    d.start_without_acks();
    d.send("\x03" + packet("qC"));
    CHECK(d.receive_packet().starts_with("QC"));
    d.in_between([&] {
        d.fake.target->script({.cause = StopEvent::Cause::write_watch, .address = VirtualAddress{0x10}});
    });
    d.send("\x03" + packet("vCont;c"));
    CHECK(d.receive_packet().starts_with("T05"));
}

BOTH_WAYS("what was sent before the end of the connection is done") {
    Debugged d{T::value};
    d.start();
    d.send(packet("QStartNoAckMode") + packet("D"));
    ::shutdown(d.socket, SHUT_WR);
    d.check_received("++" + packet("OK") + packet("OK"));
    CHECK(d.receive(1).empty());
    d.wait_for_end();
    CHECK(d.fake.target->take_log() == Log{"attach", "detach"});
}

BOTH_WAYS("a debugger that vanishes leaves the guest running") {
    Debugged d{T::value};
    d.start_without_acks();
    SUBCASE("while it stands") {}
    SUBCASE("in mid-packet") { d.send("$m1000,"); }
    SUBCASE("while it runs") { d.send(packet("vCont;c")); }
    SUBCASE("with packets that wait for a stop") { d.send(packet("vCont;c") + packet("g") + packet("?")); }
    d.hang_up();
    d.wait_for_end();
    CHECK(d.fake.target->is_running());
    CHECK(d.fake.target->take_log().back() == "detach");
    CHECK_FALSE(d.guest_gone);
}

BOTH_WAYS("the server can end it at any time") {
    Debugged d{T::value};
    SUBCASE("while the guest runs") {
        d.start_without_acks();
        d.send(packet("vCont;c"));
    }
    SUBCASE("while the guest stands") { d.start_without_acks(); }
    SUBCASE("with a debugger that reads nothing") {
        d.start_without_acks();
        for (int i = 0; i < 64; ++i) d.send(packet("m0,40000"));
    }
    asio::post(d.context, [&d] { d.client->stop(); });
    d.wait_for_end();
    CHECK(d.fake.target->is_running());
}

TEST_CASE("a ^C is seen in a connection before it is read, behind acknowledgements") {
    for (const auto& [bytes, seen] : {std::pair{std::string{""}, false},
                                      {"+", false},
                                      {"\x03", true},
                                      {"+\x03", true},
                                      {"++++\x03$g#67", true},
                                      {"$\x03", false},
                                      {"-\x03", false}}) {
        CAPTURE(bytes);
        std::array<int, 2> ends{};
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) == 0);
        asio::io_context context;
        Connection connection{
            Connection::Socket{context, asio::generic::stream_protocol{AF_UNIX, 0}, ends[1]}};
        CHECK_FALSE(Connection::is_next(connection.descriptor(), rsp::interrupt_byte));
        REQUIRE(::send(ends[0], bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
        CHECK(Connection::is_next(connection.descriptor(), rsp::interrupt_byte) == seen);
        std::array<char, 16> read{};
        CHECK(connection.read_now(read.data(), read.size()) == bytes.size());  // all of it is there still
        ::close(ends[0]);
        CHECK_FALSE(Connection::is_next(connection.descriptor(), rsp::interrupt_byte));
    }
}

BOTH_WAYS("a debugger that reads nothing gets no more than it takes, then all") {
    Debugged d{T::value};
    d.start_without_acks();
    constexpr int packets = 200;
    constexpr std::size_t bytes = 0x10000;
    for (int i = 0; i < packets; ++i) d.send(packet("m0,10000"));
    for (int i = 0; i < packets; ++i) REQUIRE(d.receive_packet().size() == 2 * bytes);
}

BOTH_WAYS("a guest that is gone ends the session, with its last word sent") {
    Debugged d{T::value};
    d.start_without_acks();
    d.in_between([&] { d.fake.target->script({.cause = StopEvent::Cause::exited}); });
    d.send(packet("vCont;c"));
    CHECK(d.receive_packet().starts_with('W'));
    CHECK(d.receive(1).empty());
    d.wait_for_end();
    CHECK(d.guest_gone);
}

BOTH_WAYS("a guest whose end comes out by a packet ends the session at the next resume") {
    Debugged d{T::value};
    d.start_without_acks();
    SUBCASE("a resume") {
        d.in_between([&] { d.fake.target->fail("resume", {Errc::target_gone, "gone"}); });
        d.send(packet("vCont;c"));
        CHECK(d.receive_packet().starts_with('W'));
    }
    SUBCASE("another") {
        d.in_between([&] { d.fake.target->fail("insert", {Errc::target_gone, "gone"}); });
        d.send(packet("Z0,1000,1"));
        CHECK(d.receive_packet().starts_with('E'));
        SUBCASE("that it resumes after") {
            d.send(packet("vCont;c"));
            CHECK(d.receive_packet().starts_with('W'));
        }
        SUBCASE("that it leaves after") { d.hang_up(); }
    }
    d.wait_for_end();
    CHECK(d.guest_gone);
}

BOTH_WAYS("a long reply is whole, in however many pieces it is made") {
    Debugged debugged{T::value};
    const MutableBytes ram = debugged.fake.target->ram().at(0, 1U << 20U);
    for (std::size_t i = 0; i < ram.size(); ++i) ram[i] = static_cast<std::byte>(i * 7 + (i >> 8) * 3);
    debugged.start_without_acks();
    debugged.send(packet("Qqemu.PhyMemMode:1"));
    debugged.check_received(packet("OK"));
    const auto check = [&](char letter, std::size_t address, std::size_t size) {
        std::string request{letter};
        rsp::append_hex_number(request, address);
        request += ',';
        rsp::append_hex_number(request, size);
        debugged.send(packet(request));
        // As far as memory goes.
        const auto bytes = ConstBytes{ram}.subspan(address).first(std::min(size, ram.size() - address));
        std::string expected;
        if (letter == 'm') rsp::append_hex(expected, bytes);
        if (letter == 'x') expected.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        expected = packet(expected);
        CAPTURE(request);
        const bool same = debugged.receive(expected.size()) == expected;
        REQUIRE(same);
    };
    for (const std::size_t size : {1UL, 0xffffUL, 0x10000UL, 0x10001UL, 0x20001UL, 0x80000UL}) {
        check('x', 0x123, size);
        check('m', 0x123, size);
    }
    check('x', 0, 0xfffff);
    check('x', 0xe0001, 0x40000);
    check('m', 0xe0001, 0x40000);
    check('x', 0xfffff, 0x40000);
}

BOTH_WAYS("non-stop mode: packets are answered while the guest runs, and stops come as notifications") {
    Debugged d{T::value};
    d.start_without_acks();
    d.send(packet("qSupported:swbreak+") + packet("QNonStop:1") + packet("vCont;c"));
    CHECK(d.receive_packet().starts_with("PacketSize"));
    CHECK(d.receive_packet() == "OK");
    CHECK(d.receive_packet() == "OK");
    d.send(packet("qC"));
    CHECK(d.receive_packet().starts_with("QC"));
    d.in_between([&] {
        d.fake.target->script({.cause = StopEvent::Cause::write_watch, .address = VirtualAddress{0x10}});
    });
    while (d.inbox.empty()) REQUIRE(d.fill_inbox());
    CHECK(d.inbox.starts_with("%Stop:T05thread:1;"));
    CHECK(d.receive_packet().ends_with("watch:10;"));
    d.send(packet("vStopped"));
    CHECK(d.receive_packet() == "OK");
    SUBCASE("it detaches") {
        d.send(packet("D"));
        CHECK(d.receive_packet() == "OK");
        SUBCASE("and stays") { std::this_thread::sleep_for(std::chrono::milliseconds{20}); }
        SUBCASE("and goes") {}
        d.hang_up();
    }
    SUBCASE("it vanishes") { d.hang_up(); }
    d.wait_for_end();
    CHECK(d.fake.target->is_running());
    CHECK(d.fake.target->take_log().back() == "detach");
}

BOTH_WAYS("non-stop mode: a client that is never quiet does not keep the guest from running") {
    Debugged d{T::value};
    d.start_without_acks();
    d.send(packet("qSupported:swbreak+") + packet("QNonStop:1") + packet("vCont;c"));
    for (int i = 0; i < 3; ++i) static_cast<void>(d.receive_packet());
    d.in_between([&] {
        d.fake.target->script({.cause = StopEvent::Cause::write_watch, .address = VirtualAddress{0x10}});
    });
    // There are always some that wait.
    std::string more;
    for (int i = 0; i < 32; ++i) more += packet("qfThreadInfo");
    d.send(more);
    for (bool stopped = false; !stopped;) {
        d.send(packet("qfThreadInfo"));
        while (d.inbox.find('#') == std::string::npos) REQUIRE(d.fill_inbox());
        stopped = d.inbox.starts_with('%');
        static_cast<void>(d.receive_packet());
    }
}

TEST_CASE("a packet that is too long is refused, and the next one answered") {
    Debugged debugged{true, {.packet_size = 1024}};
    debugged.start_without_acks();
    debugged.send(packet(std::string(5000, 'z')) + packet("qC"));
    CHECK(debugged.receive_packet().starts_with('E'));
    CHECK(debugged.receive_packet().starts_with("QC"));
}

}  // namespace
