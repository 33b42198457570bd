// Plays one transcript. transcript.cpp has the dialogue, transcript_directives.cpp the @ lines.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "stub/session.h"
#include "tests/support/fake_os.h"
#include "tests/support/fake_target.h"
#include "tests/support/transcript.h"
#include "tests/support/transcript_text.h"

namespace exo::test {

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
    void aligned_watch(Arguments /*arguments*/) { shape_.aligned_watch = true; }
    void msr(Arguments arguments) {
        target_->set_msr(static_cast<std::uint32_t>(number(arguments.word(0))), number(arguments.word(1)));
    }
    void vcpu_state(Arguments arguments);
    void reset(Arguments arguments);
    void int3(Arguments /*arguments*/) { shape_.int3_in_memory = true; }
    void past_pauses(Arguments /*arguments*/) { shape_.steps_past_pauses = true; }
    void threads(Arguments arguments) { options_.threads_are_vcpus = arguments.word(0) == "vcpus"; }
    void multi(Arguments arguments) {
        options_.multi = true;
        if (!arguments.words.empty())
            options_.port = static_cast<std::uint16_t>(std::stoul(arguments.word(0)));
    }
    void os(Arguments arguments);
    void add_task(Arguments arguments) { put_task(arguments); }
    void drop_task(Arguments arguments);
    void module(Arguments arguments);
    void drop_module(Arguments arguments);
    void saved(Arguments arguments);
    void user(Arguments arguments);
    void user_memory(Arguments arguments);
    void proc_file(Arguments arguments);
    void proc_link(Arguments arguments);
    void guest_file(Arguments arguments);
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
    bool open_may_fail_ = false;
    bool silent_ = false;
    bool closed_ = false;
    std::vector<std::string> log_;
    bool in_log_ = false;
    Captures captures_;
    std::size_t line_number_ = 0;
    TranscriptResult result_;
};

}  // namespace exo::test
