#include "rsp/client.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "rsp/hex.h"

namespace exo::rsp {
namespace {

constexpr std::uint32_t max_failures = 5;    // bad checksums or nacks in a row
constexpr std::size_t max_registers = 4096;  // of a description

std::string_view take_until(std::string_view& text, char separator) {
    const auto end = text.find(separator);
    const auto part = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    return part;
}

std::optional<std::uint32_t> decimal(std::string_view text) {
    std::uint32_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

struct Named {
    std::string_view key;
    StopReply::Reason reason;
};
constexpr Named reasons[] = {
    {"watch", StopReply::Reason::watch},     {"rwatch", StopReply::Reason::rwatch},
    {"awatch", StopReply::Reason::awatch},   {"swbreak", StopReply::Reason::swbreak},
    {"hwbreak", StopReply::Reason::hwbreak}, {"library", StopReply::Reason::library},
};

// One key:value of a T packet. False if it is malformed.
bool take_pair(StopReply& reply, std::string_view key, std::string_view value) {
    if (key == "thread") {
        const auto id = parse_thread_id(value);
        if (!id) return false;
        reply.thread = *id;
        return true;
    }
    if (key == "core") {
        const auto core = parse_hex_number(value);
        if (!core) return false;
        reply.core = static_cast<std::uint32_t>(*core);
        return true;
    }
    for (const auto& named : reasons) {
        if (named.key != key) continue;
        reply.reason = named.reason;
        const bool watch = named.reason == StopReply::Reason::watch ||
                           named.reason == StopReply::Reason::rwatch ||
                           named.reason == StopReply::Reason::awatch;
        if (!watch) return true;
        const auto address = parse_hex_number(value);
        if (!address) return false;
        reply.watch_address = *address;
        return true;
    }
    // A key of hex digits is a register number; all other keys are for those who know them.
    if (const auto number = parse_hex_number(key); number && *number <= 0xffff)
        reply.registers.emplace_back(static_cast<std::uint16_t>(*number), std::string{value});
    return true;
}

// The value of ATTRIBUTE="…" in the inside of a tag. XML entities do not occur in what is looked at here.
std::optional<std::string_view> attribute(std::string_view tag, std::string_view name) {
    for (std::size_t at = tag.find(name); at != std::string_view::npos; at = tag.find(name, at + 1)) {
        const bool starts = at > 0 && (tag[at - 1] == ' ' || tag[at - 1] == '\t' || tag[at - 1] == '\n' ||
                                       tag[at - 1] == '\r');
        auto rest = tag.substr(at + name.size());
        while (!rest.empty() && rest.front() == ' ') rest.remove_prefix(1);
        if (!starts || rest.empty() || rest.front() != '=') continue;
        rest.remove_prefix(1);
        while (!rest.empty() && rest.front() == ' ') rest.remove_prefix(1);
        if (rest.empty() || (rest.front() != '"' && rest.front() != '\'')) return std::nullopt;
        const char quote = rest.front();
        rest.remove_prefix(1);
        const auto end = rest.find(quote);
        if (end == std::string_view::npos) return std::nullopt;
        return rest.substr(0, end);
    }
    return std::nullopt;
}

bool tag_is(std::string_view tag, std::string_view name) {
    return tag.starts_with(name) && tag.size() > name.size() &&
           (tag[name.size()] == ' ' || tag[name.size()] == '\n' || tag[name.size()] == '\t' ||
            tag[name.size()] == '\r');
}

}  // namespace

Client::Client(std::size_t limit) : decoder_(limit) { decoder_.expand_runs(true); }

void Client::send(std::string_view payload) {
    last_.clear();
    append_packet(last_, payload);
    output_ += last_;
    acknowledged_ = false;
}

void Client::send_interrupt() { output_ += '\x03'; }

void Client::feed(std::string_view bytes) { decoder_.feed(bytes); }

void Client::stop_acks() {
    acks_ = false;
    decoder_.ignore_checksums(true);
}

std::string Client::take_output() { return std::exchange(output_, {}); }

std::optional<Client::Event> Client::next() {
    while (auto frame = decoder_.next()) {
        switch (frame->kind) {
            case Frame::Kind::packet:
                failures_ = 0;
                if (acks_) output_ += '+';
                return Event{Event::Kind::packet, std::move(frame->payload)};
            case Frame::Kind::notification:
                return Event{Event::Kind::notification, std::move(frame->payload)};
            case Frame::Kind::ack: acknowledged_ = true; break;
            case Frame::Kind::nack:
                if (++failures_ > max_failures) return Event{Event::Kind::broken, {}};
                output_ += last_;
                break;
            case Frame::Kind::bad_checksum:
                if (++failures_ > max_failures || !acks_) return Event{Event::Kind::broken, {}};
                output_ += '-';
                break;
            case Frame::Kind::too_long: return Event{Event::Kind::broken, {}};
            case Frame::Kind::interrupt:  // a server sends none
                break;
        }
    }
    return std::nullopt;
}

std::optional<std::string_view> error_text(std::string_view payload) {
    if (payload.starts_with("E.")) return payload.substr(2);
    if (payload.size() == 3 && payload.front() == 'E' && parse_hex_number(payload.substr(1)))
        return payload.substr(1);
    return std::nullopt;
}

std::optional<StopReply> parse_stop_reply(std::string_view payload) {
    StopReply reply;
    if (payload == "N") {
        reply.kind = StopReply::Kind::no_resumed;
        return reply;
    }
    if (payload.size() < 3) return std::nullopt;
    const char letter = payload.front();
    const auto number = parse_hex_number(payload.substr(1, 2));
    if (!number) return std::nullopt;
    payload.remove_prefix(3);
    if (letter == 'W' || letter == 'X') {
        reply.kind = StopReply::Kind::exited;
        reply.exit_status = static_cast<std::uint8_t>(*number);
        return reply;
    }
    if (letter != 'T' && letter != 'S') return std::nullopt;
    reply.signal = static_cast<Signal>(*number);
    if (letter == 'S') return payload.empty() ? std::optional{std::move(reply)} : std::nullopt;
    while (!payload.empty()) {
        auto pair = take_until(payload, ';');
        if (pair.empty()) continue;
        const auto key = take_until(pair, ':');
        if (!take_pair(reply, key, pair)) return std::nullopt;
    }
    return reply;
}

ServerFeatures ServerFeatures::parse(std::string_view payload) {
    ServerFeatures features;
    while (!payload.empty()) {
        const auto item = take_until(payload, ';');
        if (item.starts_with("PacketSize="))
            features.packet_size = parse_hex_number(item.substr(11)).value_or(0);
        else if (item == "qXfer:features:read+")
            features.features_read = true;
        else if (item == "QStartNoAckMode+")
            features.no_ack = true;
        else if (item == "multiprocess+")
            features.multiprocess = true;
        else if (item == "vContSupported+")
            features.vcont = true;
    }
    return features;
}

std::optional<XferSlice> XferSlice::parse(std::string_view payload) {
    if (payload.empty() || (payload.front() != 'm' && payload.front() != 'l')) return std::nullopt;
    return XferSlice{payload.substr(1), payload.front() == 'l'};
}

std::optional<std::vector<ThreadId>> parse_thread_list(std::string_view payload) {
    std::vector<ThreadId> threads;
    if (payload == "l") return threads;
    if (!payload.starts_with('m')) return std::nullopt;
    payload.remove_prefix(1);
    while (!payload.empty()) {
        const auto id = parse_thread_id(take_until(payload, ','));
        if (!id) return std::nullopt;
        threads.push_back(*id);
    }
    return threads;
}

std::vector<DescribedRegister> parse_registers(std::string_view xml, std::uint32_t first_number,
                                               std::vector<std::string>* includes) {
    std::vector<DescribedRegister> registers;
    std::uint32_t number = first_number;
    while (registers.size() < max_registers) {
        const auto open = xml.find('<');
        if (open == std::string_view::npos) break;
        xml.remove_prefix(open);
        const bool comment = xml.starts_with("<!--");
        const auto close = xml.find(comment ? "-->" : ">");
        if (close == std::string_view::npos) break;
        const auto tag = xml.substr(1, close - 1);
        xml.remove_prefix(close + 1);
        if (comment) continue;
        if (tag_is(tag, "xi:include")) {
            if (const auto href = attribute(tag, "href"); href && includes) includes->emplace_back(*href);
            continue;
        }
        if (!tag_is(tag, "reg")) continue;
        const auto name = attribute(tag, "name");
        const auto bits = decimal(attribute(tag, "bitsize").value_or(""));
        if (!name || !bits || *bits == 0 || *bits > 4096) break;  // all after it would be misplaced
        if (const auto given = decimal(attribute(tag, "regnum").value_or(""))) number = *given;
        registers.push_back(
            {std::string{*name}, *bits, number++, std::string{attribute(tag, "type").value_or("int")}});
    }
    return registers;
}

}  // namespace exo::rsp
