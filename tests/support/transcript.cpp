#include "tests/support/transcript.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <regex>
#include <sstream>
#include <stdexcept>

#include "stub/session.h"
#include "tests/support/fake_os.h"
#include "tests/support/fake_target.h"

namespace exo::test {
namespace {

// A mistake in the file itself.
struct Mistake : std::runtime_error {
    using std::runtime_error::runtime_error;
};

std::string escape(std::string_view payload) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string out;
    for (const char c : payload) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '\\') {
            out += "\\\\";
        } else if (byte >= 0x20 && byte < 0x7f) {
            out += c;
        } else {
            out.append("\\x").append(1, digits[byte >> 4U]).append(1, digits[byte & 0xfU]);
        }
    }
    return out;
}

std::uint64_t number(std::string_view text) {
    if (text.starts_with("0x")) text.remove_prefix(2);
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    if (error != std::errc{} || end != text.data() + text.size()) {
        throw Mistake("not a hex number: " + std::string{text});
    }
    return value;
}

std::string unescape(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '\\') {
            out += text[i];
        } else if (text.substr(i + 1, 1) == "\\") {
            out += '\\';
            ++i;
        } else if (text.substr(i + 1, 1) == "x" && i + 3 < text.size()) {
            out += static_cast<char>(number(text.substr(i + 2, 2)));
            i += 3;
        } else {
            throw Mistake("a backslash is followed by \\ or by x and two digits");
        }
    }
    return out;
}

// A stop reply's registers are of interest in few transcripts.
std::string abbreviated(const std::string& reply) {
    static const std::regex registers{";([0-9a-f]{2}:[0-9a-f]{8,16};){4,}"};
    return reply.starts_with('T') ? std::regex_replace(reply, registers, ";{{registers}}") : reply;
}

using Captures = std::map<std::string, std::string>;

struct Piece {
    bool wild = false;
    std::string text;  // literal, or regex ("*" for anything)
    std::string name;  // of a capture
};

std::vector<Piece> pieces_of(std::string_view pattern, const Captures& captures) {
    std::vector<Piece> pieces;
    while (!pattern.empty()) {
        const std::size_t open = pattern.find("{{");
        if (open != 0) pieces.push_back({false, std::string{pattern.substr(0, open)}, {}});
        if (open == std::string_view::npos) break;
        const std::size_t close = pattern.find("}}", open);
        if (close == std::string_view::npos) throw Mistake("{{ without }}");
        std::string inside{pattern.substr(open + 2, close - open - 2)};
        pattern.remove_prefix(close + 2);
        if (inside.starts_with('=')) {
            const auto kept = captures.find(inside.substr(1));
            if (kept == captures.end()) throw Mistake("nothing was kept as " + inside.substr(1));
            pieces.push_back({false, kept->second, {}});
            continue;
        }
        std::string name;
        if (const std::size_t at = inside.find(":="); at != std::string::npos) {
            name = inside.substr(0, at);
            inside.erase(0, at + 2);
        }
        if (inside == "registers") inside = "([0-9a-f]{2,}:[0-9a-fx]+;)+";
        pieces.push_back({true, inside, name});
    }
    return pieces;
}

bool part_matches(const std::string& regex, const std::string& part) {
    return regex == "*" || std::regex_match(part, std::regex{regex});
}

// Shortest first: a wild piece ends at each place where the literal behind it stands, in turn.
bool matches(std::span<const Piece> pieces, std::string_view actual, Captures& captures) {
    if (pieces.empty()) return actual.empty();
    const Piece& piece = pieces.front();
    const auto rest = pieces.subspan(1);
    if (!piece.wild) {
        return actual.starts_with(piece.text) && matches(rest, actual.substr(piece.text.size()), captures);
    }
    const std::string_view stop = rest.empty() || rest.front().wild ? std::string_view{} : rest.front().text;
    std::size_t end = rest.empty() ? actual.size() : actual.find(stop);
    while (end != std::string_view::npos && end <= actual.size()) {
        const std::string part{actual.substr(0, end)};
        if (part_matches(piece.text, part) && matches(rest, actual.substr(end), captures)) {
            if (!piece.name.empty()) captures[piece.name] = part;
            return true;
        }
        if (rest.empty()) break;
        end = actual.find(stop, end + 1);
    }
    return false;
}

// key=value pairs of a directive, and its bare words.
struct Arguments {
    std::vector<std::string> words;
    std::map<std::string, std::string> values;

    explicit Arguments(const std::string& line) {
        std::istringstream stream{line};
        std::string word;
        while (stream >> word) {
            const std::size_t equals = word.find('=');
            if (equals == std::string::npos) {
                words.push_back(word);
            } else {
                values[word.substr(0, equals)] = word.substr(equals + 1);
            }
        }
    }
    [[nodiscard]] bool has(const std::string& word) const { return std::ranges::count(words, word) > 0; }
    std::optional<std::string> take(const std::string& key) {
        const auto it = values.find(key);
        if (it == values.end()) return std::nullopt;
        std::string value = it->second;
        values.erase(it);
        return value;
    }
    std::uint64_t take_number(const std::string& key, std::uint64_t otherwise = 0) {
        const auto value = take(key);
        return value ? number(*value) : otherwise;
    }
    [[nodiscard]] const std::string& word(std::size_t index) const {
        if (index >= words.size()) throw Mistake("the directive wants more words");
        return words[index];
    }
};

Errc code_named(const std::string& name) {
    static const std::map<std::string, Errc> codes{
        {"bad_address", Errc::bad_address},
        {"no_free_slot", Errc::no_free_slot},
        {"unsupported", Errc::unsupported},
        {"backend", Errc::backend},
        {"target_gone", Errc::target_gone},
        {"timed_out", Errc::timed_out},
        {"busy", Errc::busy},
        {"denied", Errc::denied},
    };
    const auto it = codes.find(name);
    if (it == codes.end()) throw Mistake("no error code is called " + name);
    return it->second;
}

StopEvent::Cause cause_named(const std::string& name) {
    using Cause = StopEvent::Cause;
    static const std::map<std::string, Cause> causes{
        {"none", Cause::none},
        {"interrupt", Cause::interrupt},
        {"step", Cause::step},
        {"breakpoint", Cause::breakpoint},
        {"hardware_breakpoint", Cause::hardware_breakpoint},
        {"write_watch", Cause::write_watch},
        {"read_watch", Cause::read_watch},
        {"access_watch", Cause::access_watch},
        {"exited", Cause::exited},
    };
    const auto it = causes.find(name);
    if (it == causes.end()) throw Mistake("no cause is called " + name);
    return it->second;
}

BreakpointKind kind_named(const std::string& name) {
    static const std::map<std::string, BreakpointKind> kinds{
        {"software", BreakpointKind::software},         {"hardware", BreakpointKind::hardware},
        {"write_watch", BreakpointKind::write_watch},   {"read_watch", BreakpointKind::read_watch},
        {"access_watch", BreakpointKind::access_watch},
    };
    const auto it = kinds.find(name);
    if (it == kinds.end()) throw Mistake("no breakpoint kind is called " + name);
    return it->second;
}

class Player {
public:
    TranscriptResult play(const std::string& text);

private:
    using Directive = void (Player::*)(Arguments);
    struct Row {
        std::string_view name;
        Directive run;
    };
    static const std::vector<Row>& directives();

    void line(const std::string& text);
    void sent(const std::string& text);
    void expected(const std::string& text);
    void finish_replies();
    void check_log(const std::string& text);
    void finish_log();
    void directive(const std::string& text);
    void connect();
    void keep(const std::string& text) { result_.rewritten += text + "\n"; }
    void keep_reply(const std::string& text) { keep(text.empty() ? "<-" : "<- " + text); }
    void failed(const std::string& what) {
        result_.failures.push_back("line " + std::to_string(line_number_) + ": " + what);
    }
    void queue(stub::Reply reply);
    void poll();
    void set_registers(RegisterSet& registers, Arguments& arguments) const;
    os::Task& task(Arguments& arguments);
    void put_task(Arguments& arguments);

    // Directives.
    void vcpus(Arguments arguments) { shape_.vcpus = static_cast<std::uint32_t>(number(arguments.word(0))); }
    void dump(Arguments /*arguments*/) { shape_.execution = shape_.breakpoints = false; }
    void without(Arguments arguments);
    void debug_registers(Arguments arguments) { shape_.debug_registers = number(arguments.word(0)); }
    void ram(Arguments arguments) { shape_.ram = number(arguments.word(0)); }
    void packet_size(Arguments arguments) { options_.packet_size = number(arguments.word(0)); }
    void console(Arguments /*arguments*/) { shape_.console = true; }
    void int3(Arguments /*arguments*/) { shape_.int3_in_memory = true; }
    void threads(Arguments arguments) { options_.threads_are_vcpus = arguments.word(0) == "vcpus"; }
    void os(Arguments arguments);
    void add_task(Arguments arguments) { put_task(arguments); }
    void drop_task(Arguments arguments);
    void saved(Arguments arguments);
    void user_memory(Arguments arguments);
    void symbol(Arguments arguments);
    void problem(Arguments arguments);
    void registers(Arguments arguments);
    void slow(Arguments arguments);
    void memory(Arguments arguments);
    void expect_memory(Arguments arguments);
    void unmapped(Arguments arguments);
    void fail_call(Arguments arguments);
    void client(Arguments arguments);
    void stop(Arguments arguments);
    void interrupt(Arguments arguments);
    void is_running(Arguments arguments);
    void silent(Arguments arguments);
    void closed(Arguments arguments);
    void close(Arguments arguments);
    void reopen(Arguments arguments);

    FakeMachineShape shape_;
    stub::SessionOptions options_;
    FakeKernel kernel_;
    FakeTarget* target_ = nullptr;  // owned by machine_
    std::unique_ptr<stub::Machine> machine_;
    std::unique_ptr<stub::Session> session_;
    std::vector<std::string> waiting_;  // directives before there is a machine
    std::deque<std::string> replies_;
    bool silent_ = false;
    bool closed_ = false;
    std::vector<std::string> log_;
    bool in_log_ = false;
    Captures captures_;
    std::size_t line_number_ = 0;
    TranscriptResult result_;
};

const std::vector<Player::Row>& Player::directives() {
    static const std::vector<Row> rows{
        // The machine, before the first packet.
        {"vcpus", &Player::vcpus},                      // N
        {"ram", &Player::ram},                          // BYTES, from 0 on
        {"dump", &Player::dump},                        // neither execution nor breakpoints
        {"no", &Player::without},                       // breakpoints, or kinds of them
        {"debug-registers", &Player::debug_registers},  // N
        {"int3-in-memory", &Player::int3},              // as under KVM
        {"console", &Player::console},                  // the hypervisor has a command line
        {"packet-size", &Player::packet_size},          // BYTES
        {"threads", &Player::threads},                  // vcpus | tasks
        // The guest, at any time; seen from the next stop on.
        {"os", &Player::os},                    // appears [slide=N] | gone
        {"task", &Player::add_task},            // tid= [tgid= comm= process= state= cpu= vcpu=|none wchan=]
                                                // [idle] [kernel]; changes the one of that tid (and cpu)
        {"drop-task", &Player::drop_task},      // tid=
        {"saved", &Player::saved},              // tid= REGISTER=N…: of a task that sleeps
        {"user-memory", &Player::user_memory},  // tid= start= size= physical=
        {"symbol", &Player::symbol},            // NAME ADDRESS
        {"problem", &Player::problem},          // words
        {"registers", &Player::registers},      // vcpu= REGISTER=N…
        {"slow", &Player::slow},                // REGISTER: is not in read_registers()
        {"memory", &Player::memory},            // PHYSICAL HEX
        {"expect-memory", &Player::expect_memory},  // PHYSICAL HEX, with breakpoints in it
        {"unmapped", &Player::unmapped},            // ADDRESS [no]: software breakpoints fail there
        {"fail", &Player::fail_call},               // CALL CODE [times=N]: FakeTarget::fail
        // The dialogue.
        {"client", &Player::client},  // gdb | lldb: its first packets, replies not shown
        {"stop", &Player::stop},      // vcpu= cause= [address=] [REGISTER=N…] [task=TID]: the next event;
                                      // `interrupted`: ^C at that moment, which gives no event more
        {"interrupt", &Player::interrupt},  // ^C
        {"running", &Player::is_running},   // the events so far passed unseen, the guest runs on
        {"silent", &Player::silent},        // the packet before has no reply
        {"closed", &Player::closed},        // the last reply ended the connection
        {"close", &Player::close},          // the client goes away
        {"reopen", &Player::reopen},        // another connects
    };
    return rows;
}

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
    if (session_ && session_->running) poll();
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
    session_ = std::make_unique<stub::Session>(*machine_, options_);
    if (auto opened = session_->open(); !opened) failed("open: " + opened.error().message);
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
    if (reply.kind == Kind::packet) replies_.push_back(std::move(reply.payload));
    silent_ = reply.kind == Kind::silent;
    closed_ = reply.closes;
}

// As the connection does it: until there is a stop reply, or nothing more happens.
void Player::poll() {
    while (session_->running) {
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
    if (replies_.empty() && session_ && session_->running) poll();
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

void Player::directive(const std::string& text) {
    const std::size_t space = text.find(' ');
    const std::string name = text.substr(0, space);
    const auto& rows = directives();
    const auto row = std::ranges::find(rows, name, &Row::name);
    if (row == rows.end()) throw Mistake("no directive is called " + name);
    constexpr std::array shapes{"vcpus",          "ram",     "dump",        "no",     "debug-registers",
                                "int3-in-memory", "console", "packet-size", "threads"};
    const bool shape = std::ranges::count(shapes, name) > 0;
    if (shape && machine_) throw Mistake("comes before the first packet");
    if (!machine_ &&
        (name == "registers" || name == "slow" || name == "memory" || name == "unmapped" || name == "fail")) {
        waiting_.push_back(text);
        return;
    }
    if (!shape && !machine_ && (name == "client" || name == "stop" || name == "reopen")) connect();
    (this->*row->run)(Arguments{space == std::string::npos ? "" : text.substr(space + 1)});
}

void Player::without(Arguments arguments) {
    for (const std::string& word : arguments.words) {
        if (word == "breakpoints") {
            shape_.breakpoints = false;
        } else {
            shape_.kinds.erase(kind_named(word));
        }
    }
}

void Player::os(Arguments arguments) {
    kernel_.present = arguments.word(0) != "gone";
    kernel_.slide = arguments.take_number("slide", kernel_.slide);
}

// By tid, idle tasks by CPU too; made if it is not there.
os::Task& Player::task(Arguments& arguments) {
    const auto tid = static_cast<std::uint32_t>(arguments.take_number("tid"));
    const bool idle = arguments.has("idle");
    const auto cpu = arguments.take("cpu");
    auto it = std::ranges::find_if(kernel_.tasks, [&](const os::Task& t) {
        return t.tid == tid && t.idle == idle && (!idle || (cpu && number(*cpu) == t.cpu));
    });
    if (it == kernel_.tasks.end() || arguments.has("again")) {
        os::Task made;
        made.tid = made.tgid = tid;
        made.idle = idle;
        made.state = idle ? 'R' : 'S';
        made.address = VirtualAddress{0xffff888000000000 + 0x1000 * (kernel_.tasks.size() + 1)};
        kernel_.tasks.push_back(std::move(made));
        it = std::prev(kernel_.tasks.end());
        kernel_.present = true;
    }
    if (cpu) it->cpu = static_cast<std::uint32_t>(number(*cpu));
    return *it;
}

void Player::put_task(Arguments& arguments) {
    os::Task& changed = task(arguments);
    if (arguments.has("kernel")) changed.kernel_thread = true;
    changed.tgid = static_cast<std::uint32_t>(arguments.take_number("tgid", changed.tgid));
    changed.wchan = VirtualAddress{arguments.take_number("wchan", raw(changed.wchan))};
    if (auto comm = arguments.take("comm")) changed.comm = unescape(*comm);
    changed.process =
        arguments.take("process").value_or(changed.process.empty() ? changed.comm : changed.process);
    if (auto state = arguments.take("state")) changed.state = state->at(0);
    if (auto vcpu = arguments.take("vcpu")) {
        changed.vcpu.reset();
        if (*vcpu != "none") {
            changed.vcpu = static_cast<VcpuId>(number(*vcpu));
            changed.cpu = *changed.vcpu;
            changed.state = 'R';
        }
    }
    if (!arguments.values.empty()) throw Mistake("unknown key " + arguments.values.begin()->first);
}

void Player::drop_task(Arguments arguments) {
    const auto tid = arguments.take_number("tid");
    std::erase_if(kernel_.tasks, [&](const os::Task& t) { return !t.idle && t.tid == tid; });
}

void Player::set_registers(RegisterSet& registers, Arguments& arguments) const {
    for (const auto& [name, value] : arguments.values) {
        const auto found = registers.layout().find(name);
        if (!found) throw Mistake("no register is called " + name);
        if (value == "unavailable") {
            registers.set_unavailable(*found);
        } else {
            registers.set(*found, number(value));
        }
    }
}

void Player::saved(Arguments arguments) {
    os::Task& sleeper = task(arguments);
    RegisterSet registers{x86::layout()};
    set_registers(registers, arguments);
    kernel_.saved.insert_or_assign(sleeper.address, registers);
}

void Player::user_memory(Arguments arguments) {
    os::Task& owner = task(arguments);
    kernel_.user_memory[owner.address].push_back({.start = arguments.take_number("start"),
                                                  .size = arguments.take_number("size", 0x1000),
                                                  .physical = arguments.take_number("physical"),
                                                  .user = true});
}

void Player::symbol(Arguments arguments) {
    kernel_.symbols.add(VirtualAddress{number(arguments.word(1))}, 'T', arguments.word(0));
}

void Player::problem(Arguments arguments) {
    std::string text;
    for (const std::string& word : arguments.words) text += (text.empty() ? "" : " ") + word;
    kernel_.problems.push_back(text);
}

void Player::registers(Arguments arguments) {
    set_registers(target_->registers(static_cast<VcpuId>(arguments.take_number("vcpu"))), arguments);
}

void Player::slow(Arguments arguments) {
    const auto found = x86::layout().find(arguments.word(0));
    if (!found) throw Mistake("no register is called " + arguments.word(0));
    target_->make_slow(*found);
}

void Player::memory(Arguments arguments) {
    const std::string& digits = arguments.word(1);
    const auto to = target_->ram().at(number(arguments.word(0)), digits.size() / 2);
    for (std::size_t i = 0; i < to.size(); ++i)
        to[i] = static_cast<std::byte>(number(digits.substr(2 * i, 2)));
}

void Player::expect_memory(Arguments arguments) {
    const std::string& digits = arguments.word(1);
    const auto from = target_->ram().at(number(arguments.word(0)), digits.size() / 2);
    for (std::size_t i = 0; i < from.size(); ++i) {
        if (from[i] == static_cast<std::byte>(number(digits.substr(2 * i, 2)))) continue;
        failed("byte " + std::to_string(i) + " in the guest is " + hex(static_cast<std::uint64_t>(from[i])));
    }
}

void Player::unmapped(Arguments arguments) {
    target_->unmap_for_breakpoints(VirtualAddress{number(arguments.word(0))}, !arguments.has("no"));
}

void Player::fail_call(Arguments arguments) {
    target_->fail(arguments.word(0), Error{code_named(arguments.word(1)), "as scripted"},
                  static_cast<int>(arguments.take_number("times", 1)));
}

void Player::client(Arguments arguments) {
    static const std::map<std::string, std::vector<std::string>> first_packets{
        {"gdb",
         {"qSupported:multiprocess+;swbreak+;hwbreak+;qRelocInsn+;fork-events+;vfork-events+;exec-events+;"
          "vContSupported+;QThreadEvents+;no-resumed+;memory-tagging+;xmlRegisters=i386",
          "QStartNoAckMode"}},
        {"gdb16",
         {"qSupported:multiprocess+;swbreak+;hwbreak+;qRelocInsn+;fork-events+;vfork-events+;exec-events+;"
          "vContSupported+;QThreadEvents+;QThreadOptions+;no-resumed+;memory-tagging+;xmlRegisters=i386;"
          "error-message+",
          "QStartNoAckMode"}},
        {"lldb",
         {"QStartNoAckMode",
          "qSupported:xmlRegisters=i386,arm,mips,arc;multiprocess+;fork-events+;vfork-events+",
          "QThreadSuffixSupported", "QListThreadsInStopReply", "QEnableErrorStrings"}},
    };
    const auto it = first_packets.find(arguments.word(0));
    if (it == first_packets.end()) throw Mistake("no client is called " + arguments.word(0));
    for (const std::string& packet : it->second) {
        if (session_->dispatch(packet).payload.empty()) failed("no reply to " + packet);
    }
}

void Player::stop(Arguments arguments) {
    StopEvent event;
    event.vcpu = static_cast<VcpuId>(arguments.take_number("vcpu"));
    event.cause = cause_named(arguments.take("cause").value_or("breakpoint"));
    event.address = VirtualAddress{arguments.take_number("address")};
    // What the guest did until then: vcpu's registers, and which task runs there now.
    std::optional<std::uint64_t> now;
    if (auto tid = arguments.take("task")) now = number(*tid);
    const bool interrupted = arguments.has("interrupted");
    target_->script(event, [this, event, arguments, now, interrupted]() mutable {
        if (interrupted) session_->interrupt();
        if (interrupted) target_->absorb_interrupt();
        set_registers(target_->registers(event.vcpu), arguments);
        if (!now) return;
        for (os::Task& t : kernel_.tasks) {
            if (t.vcpu == event.vcpu) t.vcpu.reset();
            const bool idle = *now == 0 && t.idle && t.cpu == event.vcpu;
            if (idle || (*now != 0 && !t.idle && t.tid == *now)) {
                t.vcpu = event.vcpu;
                t.cpu = event.vcpu;
            }
        }
    });
}

void Player::interrupt(Arguments /*arguments*/) { session_->interrupt(); }

void Player::is_running(Arguments /*arguments*/) {
    poll();
    if (!session_->running) failed("the guest stopped, but should run on");
    if (target_->scripted() > 0) failed("not all scripted stops were taken");
    finish_replies();
}

void Player::silent(Arguments /*arguments*/) {
    if (!silent_) failed("the packet should have had no reply");
}

void Player::closed(Arguments /*arguments*/) {
    if (!closed_) failed("the connection should have ended");
}

void Player::close(Arguments /*arguments*/) {
    if (auto closed = session_->close(); !closed) failed("close: " + closed.error().message);
}

void Player::reopen(Arguments /*arguments*/) {
    session_ = std::make_unique<stub::Session>(*machine_, options_);
    if (auto opened = session_->open(); !opened) failed("open: " + opened.error().message);
}

}  // namespace

TranscriptResult play_transcript(const std::string& text) { return Player{}.play(text); }

bool transcript_matches(const std::string& pattern, const std::string& actual) {
    Captures captures;
    return matches(pieces_of(pattern, captures), actual, captures);
}

}  // namespace exo::test
