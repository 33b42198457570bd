#include "rsp/frame.h"

#include <algorithm>
#include <array>
#include <utility>

#include "rsp/escape.h"
#include "rsp/hex.h"
#include "rsp/scan.h"

namespace exo::rsp {
namespace {

constexpr char telnet_command = '\xff';  // IAC
constexpr char telnet_break = '\xf3';    // BRK
// A run's count byte is the count plus this (GDB manual, "Overview"): 3 repeats are ' '.
constexpr int run_bias = 29;
constexpr int longest_run = '~' - run_bias;

}  // namespace

PacketWriter::PacketWriter(WireBuffer& out, char start) : out_(&out) { out.push_back(start); }

void PacketWriter::add(std::string_view piece) {
    // In blocks, so that room for twice its size is not asked for at once.
    constexpr std::size_t block = 1U << 14U;
    while (!piece.empty()) {
        const std::string_view chunk = piece.substr(0, block);
        piece.remove_prefix(chunk.size());
        const Escaped escaped = escape(chunk, out_->prepare(2 * chunk.size()));
        out_->commit(escaped.length);
        sum_ = static_cast<std::uint8_t>(sum_ + escaped.sum);
    }
}

void PacketWriter::add_with_runs(std::string_view piece) {
    while (!piece.empty()) {
        const std::size_t start = find_run(piece);
        add(piece.substr(0, start));
        piece.remove_prefix(start);
        if (piece.empty()) return;
        const std::size_t end = piece.find_first_not_of(piece.front());
        const std::string_view run = piece.substr(0, end);
        if (frames_packet(run.front())) {
            add(run);
        } else {
            add_run(run.front(), run.size());
        }
        piece.remove_prefix(run.size());
    }
}

// Each part is the byte, `*` and how often it is repeated. Six and seven repeats would be a `#` and a `$`.
void PacketWriter::add_run(char byte, std::size_t length) {
    std::string text;
    while (length > 3) {
        std::size_t repeats = std::min<std::size_t>(length - 1, longest_run);
        if (repeats == 6 || repeats == 7) repeats = 5;
        text += byte;
        text += '*';
        text += static_cast<char>(repeats + run_bias);
        length -= repeats + 1;
    }
    text.append(length, byte);
    sum_ = static_cast<std::uint8_t>(sum_ + sum_bytes(text));
    out_->append(text);
}

void PacketWriter::finish() {
    std::string end = "#";
    append_hex(end, std::string_view(reinterpret_cast<const char*>(&sum_), 1));
    out_->append(end);
}

namespace {

void append_frame(std::string& out, char start, std::string_view payload) {
    WireBuffer framed;
    PacketWriter writer{framed, start};
    writer.add(payload);
    writer.finish();
    out.append(framed.view());
}

}  // namespace

void append_packet(std::string& out, std::string_view payload) { append_frame(out, '$', payload); }
void append_notification(std::string& out, std::string_view payload) { append_frame(out, '%', payload); }

void FrameDecoder::feed(std::string_view bytes) {
    // Only what was consumed is moved away, and only when that is the larger part: linear over all.
    if (position_ > input_.size() / 2) {
        input_.erase(0, position_);
        position_ = 0;
    }
    input_.append(bytes);
}

std::optional<Frame> FrameDecoder::next() {
    while (position_ < input_.size()) {
        if (state_ == State::body) take_run_of_data();
        if (position_ == input_.size()) break;
        if (std::optional<Frame> event = take_byte(input_[position_])) return event;
    }
    input_.clear();
    position_ = 0;
    return std::nullopt;
}

void FrameDecoder::take_run_of_data() {
    const std::string_view rest = std::string_view(input_).substr(position_);
    const std::string_view data = rest.substr(0, find_framing(rest));
    position_ += data.size();
    sum_ = static_cast<std::uint8_t>(sum_ + sum_bytes(data));
    if (data.empty()) return;
    last_raw_ = data.back();
    keep(data);
}

// Takes `c`, which is at position_, unless what it ends must see it again.
std::optional<Frame> FrameDecoder::take_byte(char c) {
    if (state_ == State::checksum1 || state_ == State::checksum2) return take_checksum(c);
    ++position_;
    if (state_ == State::idle) return take_idle(c);
    if (state_ == State::telnet) {
        state_ = State::idle;
        if (c == telnet_break) return Frame{Frame::Kind::interrupt, {}};
        return take_idle(c);
    }
    take_body(c);
    return std::nullopt;
}

std::optional<Frame> FrameDecoder::take_idle(char c) {
    switch (c) {
        case '+': return Frame{Frame::Kind::ack, {}};
        case '-': return Frame{Frame::Kind::nack, {}};
        case interrupt_byte: return Frame{Frame::Kind::interrupt, {}};
        case telnet_command: state_ = State::telnet; break;
        case '$': start(Frame::Kind::packet); break;
        case '%': start(Frame::Kind::notification); break;
        default: break;
    }
    return std::nullopt;
}

void FrameDecoder::take_body(char c) {
    // Framing goes before escapes and runs, as in gdb: neither can hide a '#' or a '$'.
    if (c == '$') return start(Frame::Kind::packet);
    if (c == '#') {
        if (state_ == State::escape) keep(std::string_view(&escape_mark, 1));  // it escapes nothing
        if (state_ == State::run) garbled_ = true;
        state_ = State::checksum1;
        return;
    }
    sum_ = static_cast<std::uint8_t>(sum_ + static_cast<std::uint8_t>(c));
    if (state_ == State::run) {
        state_ = State::body;
        const int count = static_cast<unsigned char>(c) - run_bias;
        if (count <= 0 || count > longest_run || !has_raw_) {
            garbled_ = true;
            return;
        }
        std::array<char, longest_run> run;
        run.fill(last_raw_);
        keep(std::string_view(run.data(), static_cast<std::size_t>(count)));
        return;
    }
    if (state_ == State::body && c == escape_mark) {
        state_ = State::escape;
        return;
    }
    if (state_ == State::body && c == '*' && expand_runs_) {
        state_ = State::run;
        return;
    }
    // A run repeats the byte on the wire, not what it was an escape for: gdb expands runs first.
    last_raw_ = c;
    if (state_ == State::escape) c = static_cast<char>(c ^ escape_flip);
    state_ = State::body;
    keep(std::string_view(&c, 1));
}

std::optional<Frame> FrameDecoder::take_checksum(char c) {
    // A packet that starts here cuts the checksum short, and is not lost with it.
    const bool cut_short = c == '$';
    if (!cut_short) ++position_;
    const std::optional<std::uint64_t> digit = parse_hex_number(std::string_view(&c, 1));
    if (!digit) checksum_valid_ = false;
    expected_ = static_cast<std::uint8_t>(16UL * expected_ + digit.value_or(0));
    if (state_ == State::checksum1 && !cut_short) {
        state_ = State::checksum2;
        return std::nullopt;
    }
    return finish();
}

void FrameDecoder::start(Frame::Kind kind) {
    state_ = State::body;
    frame_.kind = kind;
    frame_.payload.clear();
    sum_ = expected_ = 0;
    checksum_valid_ = true;
    overflow_ = garbled_ = has_raw_ = false;
}

std::optional<Frame> FrameDecoder::finish() {
    state_ = State::idle;
    const bool good = !garbled_ && (ignore_checksums_ || (checksum_valid_ && sum_ == expected_));
    Frame frame = std::exchange(frame_, Frame{});
    if (good && !overflow_) return frame;
    // Notifications are not answered, so a bad one is dropped, as gdb does.
    if (frame.kind == Frame::Kind::notification) return std::nullopt;
    return Frame{overflow_ ? Frame::Kind::too_long : Frame::Kind::bad_checksum, {}};
}

void FrameDecoder::keep(std::string_view data) {
    has_raw_ = true;
    if (overflow_) return;
    if (data.size() > limit_ - frame_.payload.size()) {
        overflow_ = true;
        frame_.payload = std::string();
        return;
    }
    frame_.payload.append(data);
}

}  // namespace exo::rsp
