#include "tests/support/transcript.h"

#include <sstream>
#include <utility>

#include "tests/support/transcript_player.h"

namespace exo::test {

TranscriptResult Player::play(const std::string& text) {
    std::istringstream stream{text};
    std::string current;
    while (std::getline(stream, current)) {
        ++line_number_;
        try {
            line(current);
        } catch (const std::exception& mistake) {
            failed(mistake.what());
            keep(current);
        }
    }
    finish_replies();
    finish_log();
    if (session_) poll();
    for (const std::string& reply : replies_) failed("one reply too many: " + escape(reply));
    return std::move(result_);
}

void Player::line(const std::string& text) {
    if (in_log_ && !text.starts_with("@log")) finish_log();
    if (text.starts_with("-> ") || text == "->") {
        finish_replies();
        keep(text);
        sent(text.size() > 3 ? text.substr(3) : "");
    } else if (text.starts_with("<- ") || text == "<-") {
        expected(text.size() > 3 ? text.substr(3) : "");
    } else if (text.starts_with("@log")) {
        finish_replies();
        check_log(text);
    } else if (text.starts_with('@')) {
        finish_replies();
        keep(text);
        directive(text.substr(1));
    } else {
        finish_replies();
        if (!text.empty() && !text.starts_with('#')) throw Mistake("not a line of a transcript");
        keep(text);
    }
}

void Player::connect() {
    if (machine_) return;
    auto target = std::make_unique<FakeTarget>(shape_);
    target_ = target.get();
    machine_ = std::make_unique<stub::Machine>(std::move(target), fake_probe(kernel_));
    for (const std::string& text : std::exchange(waiting_, {})) directive(text);
    kernel_.symbols.finish();
    reopen(Arguments{""});
}

void Player::sent(const std::string& text) {
    connect();
    std::string payload;
    for (const Piece& piece : pieces_of(unescape(text), captures_)) payload += piece.text;
    if (session_->running && stub::Session::waits_for_stop(payload)) {
        failed("the guest runs: this packet would wait for its stop");
        return;
    }
    queue(session_->dispatch(payload));
}

void Player::queue(stub::Reply reply) {
    using Kind = stub::Reply::Kind;
    for (std::string& before : reply.before) replies_.push_back(std::move(before));
    reply.complete();
    if (reply.kind == Kind::packet) replies_.push_back(std::move(reply.payload));
    for (const std::string& after : reply.after) replies_.push_back("%" + after);
    silent_ = reply.kind == Kind::silent;
    closed_ = reply.closes;
}

// As the connection does it: until there is a stop reply, or nothing more happens.
void Player::poll() {
    while (session_->running || session_->non_stop.watches()) {
        const std::size_t before = target_->scripted();
        auto reply = session_->poll_stop(std::chrono::milliseconds{0});
        if (reply) {
            queue(*std::move(reply));
        } else if (target_->scripted() == before) {
            return;
        }
    }
}

void Player::expected(const std::string& text) {
    if (replies_.empty() && session_) poll();
    if (replies_.empty()) {
        failed("no reply, but one was expected: " + text);
        return;
    }
    const std::string actual = std::move(replies_.front());
    replies_.pop_front();
    if (matches(pieces_of(unescape(text), captures_), actual, captures_)) {
        keep_reply(text);
        return;
    }
    keep_reply(abbreviated(escape(actual)));
    failed("expected " + text + "\n      got      " + escape(actual));
}

void Player::finish_replies() {
    while (!replies_.empty()) {
        failed("one reply too many: " + escape(replies_.front()));
        keep_reply(abbreviated(escape(replies_.front())));
        replies_.pop_front();
    }
}

// A block of @log lines is all that the machine saw since the last block; `@log` alone: nothing.
void Player::check_log(const std::string& text) {
    if (!in_log_) {
        connect();
        in_log_ = true;
        log_ = target_->take_log();
    }
    const std::string wanted = text.size() > 5 ? text.substr(5) : "";
    if (wanted.empty()) {
        if (log_.empty()) keep(text);
        return;
    }
    if (log_.empty()) {
        failed("the machine did not see: " + wanted);
        return;
    }
    const std::string actual = log_.front();
    log_.erase(log_.begin());
    Captures ignored = captures_;
    const bool same = matches(pieces_of(wanted, captures_), actual, ignored);
    keep("@log " + (same ? wanted : actual));
    if (!same) failed("the machine should have seen  " + wanted + "\n      but saw              " + actual);
}

void Player::finish_log() {
    in_log_ = false;
    for (const std::string& more : std::exchange(log_, {})) {
        failed("the machine saw more: " + more);
        keep("@log " + more);
    }
}

TranscriptResult play_transcript(const std::string& text) { return Player{}.play(text); }

bool transcript_matches(const std::string& pattern, const std::string& actual) {
    Captures captures;
    return matches(pieces_of(pattern, captures), actual, captures);
}

}  // namespace exo::test
