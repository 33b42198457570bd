#include "backends/qemu/stub_client.h"

#include <poll.h>

#include <algorithm>
#include <utility>

#include "rsp/hex.h"

namespace exo::qemu {
namespace {

using namespace std::chrono_literals;

constexpr auto reply_limit = 10s;
// How long a request may go without its ack after a stop reply came in its place.
constexpr auto ack_limit = 500ms;
constexpr std::size_t max_description = 1U << 20U;
constexpr std::size_t max_documents = 16;

std::string hex_number(std::uint64_t value) {
    std::string text;
    rsp::append_hex_number(text, value);
    return text;
}

std::string thread_text(rsp::ThreadId thread) {
    std::string text;
    rsp::append_thread_id(text, thread, false);
    return text;
}

}  // namespace

Result<std::unique_ptr<StubClient>> StubClient::connect(const std::string& path, const Process& process) {
    std::unique_ptr<StubClient> client{new StubClient(TRY(connect_unix(path)), process)};
    CHECK_OK(client->negotiate());
    return client;
}

Result<void> StubClient::flush(Clock::time_point deadline) {
    if (!client_.has_output()) return {};
    return write_all(socket_.get(), client_.take_output(), deadline);
}

Result<std::optional<std::string>> StubClient::next_packet(Clock::time_point deadline) {
    for (;;) {
        auto event = client_.next();
        // Its acknowledgement goes out with the next request, which QEMU answers sooner than two of them.
        if (event && event->kind == rsp::Client::Event::Kind::packet) return std::move(event->payload);
        CHECK_OK(flush(deadline));
        if (event && event->kind == rsp::Client::Event::Kind::broken)
            return fail(Errc::backend, "QEMU's stub sends packets that cannot be read");
        if (event) continue;
        std::string bytes;
        if (!TRY(read_available(socket_.get(), bytes, deadline))) return std::nullopt;
        client_.feed(bytes);
    }
}

// A stop reply may come uninvited: QEMU 7.2 sends one when connecting stops the guest, and whenever somebody
// else lets it run in between. A byte that reaches a running guest stops it and is lost with the rest of its
// packet (QEMU gdbstub, gdb_read_byte): such a request is never acknowledged, and is sent again.
Result<std::string> StubClient::await_reply(std::string_view payload, bool stop_reply_wanted) {
    const auto deadline = Clock::now() + reply_limit;
    for (auto until = deadline;;) {
        auto packet = TRY(next_packet(until));
        if (!packet) {
            if (until == deadline || client_.acknowledged())
                return fail(Errc::timed_out, "QEMU's stub does not answer");
            client_.send(payload);
            CHECK_OK(flush(deadline));
            until = deadline;
            continue;
        }
        const bool stop = packet->size() >= 3 && (packet->front() == 'T' || packet->front() == 'W');
        if (!stop || (stop_reply_wanted && client_.acknowledged())) return std::move(*packet);
        if (packet->front() == 'W') return fail(Errc::target_gone, "the guest is gone: QEMU ends");
        selected_.reset();
        selected_for_breakpoints_.reset();
        until = client_.acknowledged() ? deadline : Clock::now() + ack_limit;
    }
}

Result<std::string> StubClient::exchange(std::string_view payload) {
    if (!process_.alive()) return fail(Errc::target_gone, "the guest is gone: QEMU has ended");
    if (!posted_.empty()) {
        const std::string posted = std::exchange(posted_, {});
        CHECK_OK(command(posted, Errc::unsupported, "writing a register"));
    }
    client_.send(payload);
    CHECK_OK(flush(Clock::now() + reply_limit));
    return await_reply(payload, payload == "?");
}

Result<void> StubClient::command(std::string_view payload, Errc code, std::string_view what) {
    const auto reply = TRY(exchange(payload));
    if (reply == "OK") return {};
    if (reply.empty()) return fail(Errc::unsupported, std::string{what} + ": QEMU's stub does not know it");
    return fail(code, std::string{what} + ": QEMU's stub answers " + reply.substr(0, 80));
}

Result<void> StubClient::negotiate() {
    const auto reply = TRY(exchange("qSupported:xmlRegisters=i386"));
    features_ = rsp::ServerFeatures::parse(reply);
    if (features_.packet_size < 256 || !features_.features_read)
        return fail(Errc::unsupported, "QEMU's stub offers no target description");
    CHECK_OK(drop_breakpoints());
    CHECK_OK(read_description());
    CHECK_OK(read_threads());
    // Qqemu.PhyMemMode: QEMU 4.1 and later. Without it, write_physical() fails.
    physical_mode_ = TRY(exchange("Qqemu.PhyMemMode:1")) == "OK";
    return {};
}

Result<void> StubClient::drop_breakpoints() {
    if (!rsp::parse_stop_reply(TRY(exchange("?"))))
        return fail(Errc::backend, "QEMU's stub does not answer `?`");
    selected_.reset();
    return {};
}

Result<void> StubClient::leave_physical_mode() {
    if (!physical_mode_) return {};
    physical_mode_ = false;
    return command("Qqemu.PhyMemMode:0", Errc::backend, "leaving the physical memory mode of QEMU's stub");
}

// With the process: a stub whose last client had multiprocess on refuses a bare D, and forgets the extension
// no sooner than at the next qSupported that names it (QEMU 7.2 gdbstub, handle_detach()).
Result<void> StubClient::detach() {
    CHECK_OK(leave_physical_mode());
    CHECK_OK(command("D;1", Errc::backend, "detaching from QEMU's stub"));
    return flush(Clock::now() + reply_limit);  // the last acknowledgement: QEMU keeps waiting for it
}

Result<std::string> StubClient::read_xfer(const std::string& name) {
    std::string document;
    while (document.size() < max_description) {
        const auto reply = TRY(exchange("qXfer:features:read:" + name + ":" + hex_number(document.size()) +
                                        "," + hex_number(features_.packet_size - 5)));
        const auto slice = rsp::XferSlice::parse(reply);
        if (!slice || (slice->data.empty() && !slice->last))
            return fail(Errc::backend, "QEMU's stub does not give its target description " + name);
        document += slice->data;
        if (slice->last) return document;
    }
    return fail(Errc::backend, "QEMU's target description " + name + " is too long");
}

// Included documents describe their registers before what follows the include; QEMU's target.xml has nothing
// but includes.
Result<void> StubClient::read_description() {
    std::vector<rsp::DescribedRegister> registers;
    std::vector<std::string> names{"target.xml"};
    for (std::size_t i = 0; i < names.size() && i < max_documents; ++i) {
        const auto document = TRY(read_xfer(names[i]));
        const auto first = registers.empty() ? 0U : registers.back().number + 1;
        auto more = rsp::parse_registers(document, first, &names);
        std::move(more.begin(), more.end(), std::back_inserter(registers));
    }
    register_map_ = RegisterMap{x86::layout(), registers};
    if (!register_map_.stub_number(x86::rip) || !register_map_.stub_number(x86::cr3))
        return fail(Errc::unsupported, "QEMU's stub describes no x86-64 registers");
    return {};
}

Result<void> StubClient::read_threads() {
    for (std::string request = "qfThreadInfo";; request = "qsThreadInfo") {
        const auto more = rsp::parse_thread_list(TRY(exchange(request)));
        if (!more) return fail(Errc::backend, "QEMU's stub gives a malformed thread list");
        if (more->empty() || threads_.size() > 65536) break;
        threads_.insert(threads_.end(), more->begin(), more->end());
    }
    // QEMU's thread ids are 1 + cpu_index, but the list is not in that order where vCPUs were plugged in.
    std::sort(threads_.begin(), threads_.end(), [](const auto& a, const auto& b) { return a.tid < b.tid; });
    if (threads_.empty()) return fail(Errc::backend, "QEMU's stub lists no vCPU");
    return {};
}

std::optional<VcpuId> StubClient::vcpu_of(rsp::ThreadId thread) const {
    const auto at =
        std::find_if(threads_.begin(), threads_.end(), [&](const auto& t) { return t.tid == thread.tid; });
    if (at == threads_.end()) return std::nullopt;
    return static_cast<VcpuId>(at - threads_.begin());
}

Result<void> StubClient::select(VcpuId vcpu) {
    if (vcpu >= threads_.size()) return fail(Errc::no_such_thread, "no vCPU " + std::to_string(vcpu));
    if (selected_ == vcpu) return {};
    CHECK_OK(
        command("Hg" + thread_text(threads_[vcpu]), Errc::no_such_thread, "vCPU " + std::to_string(vcpu)));
    selected_ = vcpu;
    return {};
}

Result<void> StubClient::select_for_breakpoints(VcpuId vcpu) {
    if (vcpu >= threads_.size()) return fail(Errc::no_such_thread, "no vCPU " + std::to_string(vcpu));
    if (selected_for_breakpoints_ == vcpu) return {};
    CHECK_OK(
        command("Hc" + thread_text(threads_[vcpu]), Errc::no_such_thread, "vCPU " + std::to_string(vcpu)));
    selected_for_breakpoints_ = vcpu;
    return {};
}

Result<RegisterSet> StubClient::read_registers(VcpuId vcpu, const RegisterLayout& layout) {
    CHECK_OK(select(vcpu));
    const auto reply = TRY(exchange("g"));
    if (const auto error = rsp::error_text(reply))
        return fail(Errc::backend,
                    "registers of vCPU " + std::to_string(vcpu) + ": QEMU's stub answers " + reply);
    RegisterSet registers{layout};
    CHECK_OK(register_map_.fill(registers, reply));
    return registers;
}

Result<std::string> StubClient::register_request(VcpuId vcpu, RegisterNumber number, ConstBytes value) {
    const auto theirs = register_map_.stub_number(number);
    if (!theirs) {
        const std::string name{x86::layout().registers[number].name};
        return fail(Errc::unsupported, "register " + name + " cannot be written through QEMU");
    }
    CHECK_OK(select(vcpu));
    std::vector<std::byte> bytes{value.begin(), value.end()};
    bytes.resize(register_map_.stub_size(number));
    std::string payload = "P" + hex_number(*theirs) + "=";
    rsp::append_hex(payload, bytes);
    return payload;
}

Result<void> StubClient::write_register(VcpuId vcpu, RegisterNumber number, ConstBytes value) {
    return command(TRY(register_request(vcpu, number, value)), Errc::unsupported,
                   "writing register " + std::string{x86::layout().registers[number].name});
}

Result<void> StubClient::post_register(VcpuId vcpu, RegisterNumber number, ConstBytes value) {
    if (!posts_ || !posted_.empty()) return write_register(vcpu, number, value);
    posted_ = TRY(register_request(vcpu, number, value));
    return {};
}

Result<void> StubClient::write_physical(PhysicalAddress address, ConstBytes in) {
    if (!physical_mode_) return fail(Errc::unsupported, "this QEMU's stub cannot write physical memory");
    const std::size_t chunk = (features_.packet_size - 64) / 2;
    while (!in.empty()) {
        const auto part = in.first(std::min(chunk, in.size()));
        std::string payload = "M" + hex_number(raw(address)) + "," + hex_number(part.size()) + ":";
        rsp::append_hex(payload, part);
        CHECK_OK(command(payload, Errc::bad_address, "writing physical memory at " + hex(address)));
        address = address + part.size();
        in = in.subspan(part.size());
    }
    return {};
}

Result<void> StubClient::resume(std::string_view payload) {
    selected_.reset();  // each stop selects the vCPU that stopped
    selected_for_breakpoints_.reset();
    posted_awaited_ = !posted_.empty();
    // QEMU takes the second packet for the acknowledgement of the first one's reply (gdbstub,
    // gdb_read_byte()).
    if (posted_awaited_) client_.send(std::exchange(posted_, {}));
    client_.send(payload);
    return flush(Clock::now() + reply_limit);
}

Result<void> StubClient::send_interrupt() {
    client_.send_interrupt();
    return flush(Clock::now() + reply_limit);
}

Result<std::optional<rsp::StopReply>> StubClient::poll_stop() {
    for (;;) {
        const auto packet = TRY(next_packet(Clock::time_point{}));
        if (!packet) return std::nullopt;
        if (auto stop = rsp::parse_stop_reply(*packet)) {
            // A vCPU that stops for the debugger is selected for all requests (gdbstub, gdb_set_stop_cpu()).
            if (stop->signal == rsp::Signal::trap) selected_ = vcpu_of(stop->thread);
            return stop;
        }
        if (std::exchange(posted_awaited_, false)) {
            posts_ = *packet == "OK";
            // A byte of ours would stop the guest, and the acknowledgement is taken for given (see resume()).
            static_cast<void>(client_.take_output());
            continue;
        }
        if (packet->empty() || rsp::error_text(*packet))
            return fail(Errc::backend, "QEMU's stub refuses to resume: it answers \"" + *packet + "\"");
    }
}

}  // namespace exo::qemu
