#include <algorithm>
#include <array>
#include <utility>

#include "tests/support/transcript_player.h"

namespace exo::test {
namespace {

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

}  // namespace

const std::vector<Player::Row>& Player::directives() {
    static const std::vector<Row> rows{
        // The machine, before the first packet.
        {"vcpus", &Player::vcpus},                      // N
        {"ram", &Player::ram},                          // BYTES, from 0 on
        {"dump", &Player::dump},                        // neither execution nor breakpoints
        {"no", &Player::without},                       // breakpoints, or kinds of them
        {"debug-registers", &Player::debug_registers},  // N
        {"int3-in-memory", &Player::int3},              // as under KVM
        {"steps-past-pauses", &Player::past_pauses},    // as TCG
        {"aligned-watch", &Player::aligned_watch},      // a watchpoint fits a debug register
        {"console", &Player::console},                  // the hypervisor has a command line
        {"packet-size", &Player::packet_size},          // BYTES
        {"threads", &Player::threads},                  // vcpus | tasks
        {"multi", &Player::multi},                      // [PORT]
        // The guest, at any time; seen from the next stop on.
        {"os", &Player::os},                // appears [slide=N] | gone
        {"task", &Player::add_task},        // tid= [tgid= comm= process= state= cpu= vcpu=|none wchan=]
                                            // [idle] [kernel]; changes the one of that tid (and cpu)
        {"drop-task", &Player::drop_task},  // tid=
        {"module", &Player::module},        // NAME text= [size= users=] [init]; changes the one of that name
        {"drop-module", &Player::drop_module},  // NAME
        {"saved", &Player::saved},              // tid= REGISTER=N…: of a task that sleeps
        {"user", &Player::user},  // tid= REGISTER=N…: of its user mode, while it is in the kernel
        {"user-memory", &Player::user_memory},      // tid= start= size= physical=
        {"proc-file", &Player::proc_file},          // TID/NAME text=
        {"proc-link", &Player::proc_link},          // TID/NAME to=
        {"guest-file", &Player::guest_file},        // PATH text= [absent=OFFSET, from which on]
        {"symbol", &Player::symbol},                // NAME ADDRESS
        {"problem", &Player::problem},              // words
        {"registers", &Player::registers},          // vcpu= REGISTER=N…
        {"vcpu-state", &Player::vcpu_state},        // vcpu= [bits= halted= smm=]
        {"msr", &Player::msr},                      // NUMBER VALUE
        {"reset", &Player::reset},                  // what the next reset does: vcpu= REGISTER=N…; no OS then
        {"slow", &Player::slow},                    // REGISTER: is not in read_registers()
        {"memory", &Player::memory},                // PHYSICAL HEX
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

void Player::directive(const std::string& text) {
    const std::size_t space = text.find(' ');
    const std::string name = text.substr(0, space);
    const auto& rows = directives();
    const auto row = std::ranges::find(rows, name, &Row::name);
    if (row == rows.end()) throw Mistake("no directive is called " + name);
    constexpr std::array shapes{
        "steps-past-pauses", "vcpus",         "ram",     "dump",        "no",      "debug-registers",
        "int3-in-memory",    "aligned-watch", "console", "packet-size", "threads", "multi"};
    const bool shape = std::ranges::count(shapes, name) > 0;
    if (shape && machine_) throw Mistake("comes before the first packet");
    constexpr std::array of_the_machine{"registers", "slow",       "memory", "unmapped",
                                        "fail",      "vcpu-state", "msr",    "reset"};
    if (!machine_ && std::ranges::count(of_the_machine, name) > 0) {
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
    if (arguments.has("ended")) changed.ended = true;
    changed.tgid = static_cast<std::uint32_t>(arguments.take_number("tgid", changed.tgid));
    // Of its process, unless it shares another's, as by vfork(2).
    changed.memory =
        VirtualAddress{0xffff888800000000 + 0x1000 * arguments.take_number("memory-of", changed.tgid)};
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

void Player::module(Arguments arguments) {
    drop_module(arguments);
    const VirtualAddress text{arguments.take_number("text")};
    os::Module module{.address = text + 0x1000, .name = arguments.word(0), .memory = {}};
    module.size = arguments.take_number("size", 0x2000);
    module.users = static_cast<std::uint32_t>(arguments.take_number("users", 0));
    module.initialising = arguments.has("init");
    module.memory.push_back({.section = ".text", .start = text, .size = module.size, .executable = true});
    kernel_.modules.insert(kernel_.modules.begin(), std::move(module));
}

void Player::drop_module(Arguments arguments) {
    std::erase_if(kernel_.modules, [&](const os::Module& m) { return m.name == arguments.word(0); });
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

void Player::user(Arguments arguments) {
    os::Task& owner = task(arguments);
    RegisterSet registers{x86::process_layout()};
    set_registers(registers, arguments);
    kernel_.user.insert_or_assign(owner.address, registers);
}

void Player::user_memory(Arguments arguments) {
    os::Task& owner = task(arguments);
    kernel_.user_memory[owner.address].push_back({.start = arguments.take_number("start"),
                                                  .size = arguments.take_number("size", 0x1000),
                                                  .physical = arguments.take_number("physical"),
                                                  .user = true});
}

void Player::proc_file(Arguments arguments) {
    kernel_.processes.texts[arguments.word(0)] = unescape(arguments.take("text").value_or(""));
}

void Player::proc_link(Arguments arguments) {
    kernel_.processes.links[arguments.word(0)] = arguments.take("to").value_or("");
}

void Player::guest_file(Arguments arguments) {
    kernel_.processes.files[arguments.word(0)] = {.content = unescape(arguments.take("text").value_or("")),
                                                  .absent = arguments.take_number("absent", UINT64_MAX)};
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

void Player::vcpu_state(Arguments arguments) {
    auto& state = target_->state(static_cast<VcpuId>(arguments.take_number("vcpu")));
    if (const auto bits = arguments.take("bits")) state.code_bits = static_cast<std::uint8_t>(number(*bits));
    if (const auto halted = arguments.take("halted")) state.halted = number(*halted) != 0;
    if (const auto smm = arguments.take("smm")) state.smm = number(*smm) != 0;
}

void Player::reset(Arguments arguments) {
    target_->in_next_reset([this, arguments]() mutable {
        kernel_.present = false;
        set_registers(target_->registers(static_cast<VcpuId>(arguments.take_number("vcpu"))), arguments);
    });
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
    open_may_fail_ = open_may_fail_ || arguments.word(0) == "attach";
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
    if (!session_->running && session_->non_stop.stands()) failed("the guest stopped, but should run on");
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
    if (auto opened = session_->open(); !opened && !open_may_fail_) failed("open: " + opened.error().message);
}

}  // namespace exo::test
