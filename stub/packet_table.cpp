#include <array>

#include "stub/handlers/handlers.h"
#include "stub/packet.h"

namespace exo::stub {
namespace {

bool can_run(const Session& session) { return session.machine.target().execution() != nullptr; }

bool has_breakpoints(const Session& session) {
    return can_run(session) && session.machine.target().breakpoints() != nullptr;
}

template <BreakpointKind kind>
bool has(const Session& session) {
    return has_breakpoints(session) && session.run_control.breakpoints.supports(kind);
}

// lldb has no non-stop mode, and is told nothing of it: gdb is who announces swbreak.
// Threads of a process stop and run together.
bool knows_non_stop(const Session& session) {
    return can_run(session) && session.client.swbreak && session.options.process.empty();
}

// Stop replies tell of it as of the rest of a process' life.
bool tells_of_processes(const Session& session) {
    return has_breakpoints(session) && session.takes_library_stops() && session.client.multiprocess;
}

bool is_multi(const Session& session) { return session.options.multi; }

bool has_os(const Session& session) { return session.machine.os() != nullptr; }

using namespace handlers;  // NOLINT: the table is a list of them

// clang-format off
constexpr auto table = std::to_array<Packet>({
    // The connection
    {.name = "qSupported", .while_running = true, .when_detached = true,
     .summary = "features of both sides", .handle = handle_with<supported>},
    {.name = "QStartNoAckMode", .match = Match::exact, .when_detached = true, .feature = "QStartNoAckMode+",
     .summary = "no more + and -", .handle = handle_with<start_no_ack>},
    {.name = "!", .match = Match::exact, .when_detached = true,
     .summary = "extended mode", .handle = handle_with<just_ok>},
    {.name = "vMustReplyEmpty", .match = Match::exact, .text_errors = true, .when_detached = true,
     .summary = "what an unknown packet gets", .handle = handle_with<empty>},
    {.name = "qAttached", .when_detached = true,
     .summary = "always 1: quitting the debugger detaches", .handle = handle_with<is_attached>},
    {.name = "D", .text_errors = true, .while_running = true, .when_detached = true,
     .summary = "detach one process or all: breakpoints out, the guest as it was found", .handle = handle_with<detach>},
    {.name = "k", .match = Match::exact, .while_running = true, .when_detached = true,
     .summary = "detaches; a guest is not killed", .handle = handle_with<kill>},
    {.name = "vKill;", .while_running = true, .when_detached = true,
     .summary = "detaches; neither a guest nor its process is killed", .handle = handle_with<kill_process>},
    {.name = "vAttach;", .text_errors = true, .slow = true, .when_detached = true,
     .summary = "attach a process of the guest, or the kernel again after a detach", .handle = handle_with<attach>},
    {.name = "vRun;", .text_errors = true, .when_detached = true,
     .summary = "refused: programs are started inside the guest", .handle = handle_with<run_program>},
    {.name = "QPassSignals:", .when_detached = true, .feature = "QPassSignals+",
     .summary = "accepted: a kernel gets no signals", .handle = handle_with<just_ok>},
    {.name = "QProgramSignals:", .when_detached = true, .feature = "QProgramSignals+",
     .summary = "accepted: a kernel gets no signals", .handle = handle_with<just_ok>},
    {.name = "qSymbol:", .when_detached = true,
     .summary = "no symbols are wanted of the client", .handle = handle_with<just_ok>},
    {.name = "qOffsets", .match = Match::exact, .available = has_os,
     .summary = "the KASLR slide", .handle = handle_with<offsets>},

    // The program: a file made from what lies in the guest's memory
    {.name = "qXfer:exec-file:read:", .available = has_os, .slow = true, .feature = "qXfer:exec-file:read+",
     .summary = "the name of the symbol file; of a process, its executable", .handle = handle_with<transfer_exec_file>},
    {.name = "qXfer:auxv:read:", .slow = true, .feature = "qXfer:auxv:read+",
     .summary = "the auxiliary vector of a process", .handle = handle_with<transfer_auxv>},
    {.name = "qXfer:libraries:read:", .slow = true, .feature = "qXfer:libraries:read+",
     .summary = "the kernel's modules and their symbol files; the kernel too, once it appears", .handle = handle_with<transfer_libraries>},
    {.name = "vFile:setfs:", .slow = true,
     .summary = "whose file names are meant: a process of the guest", .handle = handle_with<set_file_system>},
    {.name = "vFile:open:", .slow = true,
     .summary = "open a symbol file, a file of the guest, or of its /proc/PID", .handle = handle_with<open_file>},
    {.name = "vFile:pread:", .stands = Stands::nothing,
     .summary = "read from it", .handle = handle_with<read_file>},
    {.name = "vFile:fstat:",
     .summary = "its size", .handle = handle_with<file_status>},
    {.name = "vFile:stat:", .slow = true,
     .summary = "its size, by name", .handle = handle_with<file_status_by_name>},
    {.name = "vFile:close:",
     .summary = "close it", .handle = handle_with<close_file>},
    {.name = "vFile:readlink:", .slow = true,
     .summary = "where exe, cwd and root of a process lead", .handle = handle_with<read_link>},

    // Threads
    {.name = "?", .match = Match::exact, .text_errors = true, .when_detached = true,
     .summary = "why the guest stands", .handle = handle_with<halt_reason>},
    {.name = "qC", .match = Match::exact, .summary = "current thread", .handle = handle_with<current_thread>},
    {.name = "qfThreadInfo", .match = Match::exact, .summary = "all threads",
     .handle = handle_with<first_threads>},
    {.name = "qsThreadInfo", .match = Match::exact, .summary = "no more threads",
     .handle = handle_with<more_threads>},
    {.name = "qThreadExtraInfo,", .summary = "state, CPU, process, wchan of a task",
     .handle = handle_with<thread_extra_info>},
    {.name = "T", .summary = "whether a thread is alive", .handle = handle_with<thread_alive>},
    {.name = "qGetTLSAddr:", .slow = true, .summary = "where a thread of a process has its copy of a thread-local variable",
     .handle = handle_with<handlers::thread_local_address>},
    {.name = "Hg", .stands = Stands::nothing, .summary = "select a thread for registers and memory",
     .handle = handle_with<select_general_thread>},
    {.name = "Hc", .summary = "select a thread for c and s", .handle = handle_with<select_resumed_thread>},
    {.name = "qXfer:threads:read:", .feature = "qXfer:threads:read+",
     .summary = "all threads with name, CPU and state", .handle = handle_with<transfer_threads>},
    {.name = "qXfer:osdata:read:", .slow = true, .when_detached = true, .feature = "qXfer:osdata:read+",
     .summary = "`info os`: guest processes and threads, open files, modules", .handle = handle_with<transfer_osdata>},

    // Registers
    {.name = "g", .stands = Stands::thread, .summary = "all registers", .handle = handle_with<read_registers>},
    {.name = "G", .summary = "write all registers", .handle = handle_with<write_registers>},
    {.name = "p", .stands = Stands::thread, .summary = "one register", .handle = handle_with<read_register>},
    {.name = "P", .summary = "write one register", .handle = handle_with<write_register>},
    {.name = "qXfer:features:read:", .feature = "qXfer:features:read+",
     .summary = "target.xml", .handle = handle_with<transfer_features>},

    // Memory
    {.name = "m", .stands = Stands::memory, .summary = "read memory, hex", .handle = handle_with<read_memory>},
    {.name = "M", .summary = "write memory, hex", .handle = handle_with<write_memory>},
    {.name = "x", .stands = Stands::memory, .summary = "read memory, binary", .handle = handle_with<read_memory_binary>},
    {.name = "X", .summary = "write memory, binary", .handle = handle_with<write_memory_binary>},
    {.name = "qSearch:memory:", .stands = Stands::memory, .slow = true, .summary = "search memory",
     .handle = handle_with<search_memory>},
    {.name = "qCRC:", .stands = Stands::memory, .slow = true, .summary = "CRC-32 of memory",
     .handle = handle_with<checksum>},
    {.name = "Qqemu.PhyMemMode:", .summary = "m, M, x, X take physical addresses",
     .handle = handle_with<set_physical_mode>},
    {.name = "qqemu.PhyMemMode", .match = Match::exact, .summary = "whether they do",
     .handle = handle_with<query_physical_mode>},

    // Breakpoints
    {.name = "Z0,", .available = has<BreakpointKind::software>, .text_errors = true,
     .feature = "swbreak+;ConditionalBreakpoints+;BreakpointCommands+",
     .summary = "software breakpoint, its conditions and commands", .handle = handle_with<insert_breakpoint<'0'>>},
    {.name = "Z1,", .available = has<BreakpointKind::hardware>, .text_errors = true,
     .feature = "hwbreak+", .summary = "hardware breakpoint", .handle = handle_with<insert_breakpoint<'1'>>},
    {.name = "Z2,", .available = has<BreakpointKind::write_watch>, .text_errors = true,
     .summary = "write watchpoint", .handle = handle_with<insert_breakpoint<'2'>>},
    {.name = "Z3,", .available = has<BreakpointKind::read_watch>, .text_errors = true,
     .summary = "read watchpoint", .handle = handle_with<insert_breakpoint<'3'>>},
    {.name = "Z4,", .available = has<BreakpointKind::access_watch>, .text_errors = true,
     .summary = "access watchpoint", .handle = handle_with<insert_breakpoint<'4'>>},
    {.name = "z", .available = has_breakpoints, .summary = "remove a breakpoint",
     .handle = handle_with<remove_breakpoint>},
    {.name = "QCatchSyscalls:", .available = tells_of_processes, .text_errors = true, .feature = "QCatchSyscalls+",
     .summary = "which system calls of the attached processes are stops", .handle = handle_with<catch_system_calls>},

    // Tracepoints
    {.name = "QTinit", .match = Match::exact, .available = has_breakpoints, .text_errors = true,
     .summary = "no tracepoints, no trace state variables, no frames", .handle = handle_with<trace_init>},
    {.name = "QTDP:", .available = has_breakpoints, .text_errors = true,
     .feature = "ConditionalTracepoints+;tracenz+", .summary = "define a tracepoint, or what it collects",
     .handle = handle_with<define_tracepoint>},
    {.name = "QTDPsrc:", .available = has_breakpoints, .text_errors = true, .feature = "TracepointSource+",
     .summary = "its source, for uploads", .handle = handle_with<define_tracepoint_source>},
    {.name = "QTDV:", .available = has_breakpoints, .text_errors = true,
     .summary = "define a trace state variable", .handle = handle_with<define_trace_variable>},
    {.name = "QTEnable:", .available = has_breakpoints, .text_errors = true,
     .feature = "EnableDisableTracepoints+", .summary = "enable a tracepoint while a trace runs",
     .handle = handle_with<enable_tracepoint>},
    {.name = "QTDisable:", .available = has_breakpoints, .text_errors = true,
     .summary = "disable a tracepoint while a trace runs", .handle = handle_with<disable_tracepoint>},
    {.name = "QTro", .available = has_breakpoints,
     .summary = "memory that reads through trace frames", .handle = handle_with<trace_read_only>},
    {.name = "QTStart", .match = Match::exact, .available = has_breakpoints, .text_errors = true,
     .summary = "start a trace", .handle = handle_with<start_trace>},
    {.name = "QTStop", .match = Match::exact, .available = has_breakpoints, .text_errors = true,
     .summary = "end it", .handle = handle_with<stop_trace>},
    {.name = "QTDisconnected:", .available = has_breakpoints, .text_errors = true,
     .summary = "only 0: a trace ends with its client", .handle = handle_with<disconnected_tracing>},
    {.name = "QTBuffer:", .available = has_breakpoints, .text_errors = true, .feature = "QTBuffer:size+",
     .summary = "size of the trace buffer, and whether it is circular", .handle = handle_with<trace_buffer_option>},
    {.name = "QTNotes:", .available = has_breakpoints, .text_errors = true,
     .summary = "who traces and why", .handle = handle_with<trace_notes>},
    {.name = "QTFrame:", .available = has_breakpoints, .text_errors = true,
     .summary = "select a trace frame", .handle = handle_with<select_trace_frame>},
    {.name = "qTStatus", .match = Match::exact, .available = has_breakpoints, .text_errors = true,
     .summary = "whether a trace runs, and what its buffer has", .handle = handle_with<trace_status>},
    {.name = "qTP:", .available = has_breakpoints, .summary = "hits of a tracepoint, and what its frames take",
     .handle = handle_with<tracepoint_status>},
    {.name = "qTV:", .available = has_breakpoints, .summary = "value of a trace state variable",
     .handle = handle_with<trace_variable>},
    {.name = "qTfP", .match = Match::exact, .available = has_breakpoints,
     .summary = "the tracepoints, part by part", .handle = handle_with<first_tracepoint>},
    {.name = "qTsP", .match = Match::exact, .available = has_breakpoints, .summary = "the next part",
     .handle = handle_with<more_uploads>},
    {.name = "qTfV", .match = Match::exact, .available = has_breakpoints,
     .summary = "the trace state variables, one by one", .handle = handle_with<first_trace_variable>},
    {.name = "qTsV", .match = Match::exact, .available = has_breakpoints, .summary = "the next one",
     .handle = handle_with<more_uploads>},
    {.name = "qTBuffer:", .available = has_breakpoints, .summary = "the frames as a trace file has them",
     .handle = handle_with<read_trace_buffer>},
    {.name = "qXfer:traceframe-info:read:", .available = has_breakpoints,
     .feature = "qXfer:traceframe-info:read+", .summary = "what the selected frame has collected",
     .handle = handle_with<transfer_traceframe_info>},

    // Running
    {.name = "vCont?", .match = Match::exact, .available = can_run, .when_detached = true,
     .feature = "vContSupported+", .summary = "which actions vCont has", .handle = handle_with<resume_actions>},
    {.name = "vCont;", .available = can_run, .text_errors = true, .summary = "resume by thread",
     .handle = handle_with<resume>},
    // Also where nothing can run: an error ends gdb's wait for a stop, the empty reply does not (gdb/remote.c,
    // remote_target::wait_as).
    {.name = "c", .text_errors = true, .summary = "continue", .handle = handle_with<go_on>},
    {.name = "C", .text_errors = true, .summary = "continue", .handle = handle_with<go_on_with_signal>},
    {.name = "s", .text_errors = true, .summary = "step", .handle = handle_with<step>},
    {.name = "S", .text_errors = true, .summary = "step", .handle = handle_with<step_with_signal>},

    // Non-stop mode (stub/non_stop.h)
    {.name = "QNonStop:", .available = knows_non_stop, .when_detached = true, .feature = "QNonStop+",
     .summary = "whether threads stop and run one by one", .handle = handle_with<set_non_stop>},
    {.name = "vStopped", .match = Match::exact, .available = knows_non_stop, .stands = Stands::nothing,
     .when_detached = true, .feature = "no-resumed+",
     .summary = "non-stop mode: has one stop reply, wants the next", .handle = handle_with<next_stopped>},
    {.name = "vCtrlC", .match = Match::exact, .available = knows_non_stop,
     .summary = "non-stop mode: stop a thread as by ^C", .handle = handle_with<interrupt>},

    // monitor
    {.name = "qRcmd,", .while_running = true, .slow = true, .summary = "monitor commands", .handle = handle_with<monitor>},

    // lldb's platform
    {.name = "qfProcessInfo", .available = is_multi, .slow = true, .when_detached = true,
     .summary = "processes of the guest, by name or PID", .handle = handle_with<first_process>},
    {.name = "qsProcessInfo", .match = Match::exact, .available = is_multi, .when_detached = true,
     .summary = "the next of them", .handle = handle_with<next_process>},
    {.name = "qProcessInfoPID:", .available = is_multi, .slow = true, .when_detached = true,
     .summary = "one process of the guest", .handle = handle_with<process_by_pid>},
    {.name = "qLaunchGDBServer;", .available = is_multi, .when_detached = true,
     .summary = "where a client can attach: here", .handle = handle_with<launch_server>},
    {.name = "qVAttachOrWaitSupported", .match = Match::exact, .available = is_multi, .when_detached = true,
     .summary = "whether vAttachOrWait is", .handle = handle_with<just_ok>},
    {.name = "vAttachWait;", .available = is_multi, .slow = true, .when_detached = true,
     .summary = "the process of a program that is yet to begin", .handle = handle_with<attach_when_it_begins>},
    {.name = "vAttachOrWait;", .available = is_multi, .slow = true, .when_detached = true,
     .summary = "that, or one that is there", .handle = handle_with<attach_or_wait>},

    // lldb
    {.name = "QThreadSuffixSupported", .match = Match::exact, .when_detached = true,
     .summary = "g, G, p, P name their thread", .handle = handle_with<thread_suffix_supported>},
    {.name = "QListThreadsInStopReply", .match = Match::exact, .when_detached = true,
     .summary = "stop replies list all threads", .handle = handle_with<list_threads_in_stop_reply>},
    {.name = "QEnableErrorStrings", .match = Match::exact, .when_detached = true,
     .summary = "errors with text", .handle = handle_with<enable_error_strings>},
    {.name = "QSetDetachOnError:", .when_detached = true,
     .summary = "accepted: a client that goes away always leaves the guest running", .handle = handle_with<just_ok>},
    {.name = "qWatchpointSupportInfo:", .available = has<BreakpointKind::write_watch>,
     .summary = "how many watchpoints there can be", .handle = handle_with<watchpoint_support>},
    {.name = "qHostInfo", .match = Match::exact, .when_detached = true,
     .summary = "triple, pointer size, time-out", .handle = handle_with<host_info>},
    {.name = "qProcessInfo", .match = Match::exact, .summary = "pid and triple",
     .handle = handle_with<process_info>},
    {.name = "qGDBServerVersion", .match = Match::exact, .when_detached = true,
     .summary = "name and version", .handle = handle_with<server_version>},
    {.name = "jThreadsInfo", .match = Match::exact, .summary = "all threads with registers, JSON",
     .handle = handle_with<threads_info>},
    {.name = "qThreadStopInfo", .summary = "one thread's stop reply", .handle = handle_with<thread_stop_info>},
    {.name = "qMemoryRegionInfo", .summary = "mapping and permissions at an address",
     .handle = handle_with<memory_region_info>},
});
// clang-format on

// Longest match wins, so no row can hide another by its place; two rows of one name could.
consteval bool names_are_unique() {
    for (std::size_t i = 0; i < table.size(); ++i) {
        for (std::size_t j = i + 1; j < table.size(); ++j) {
            if (table[i].name == table[j].name) return false;
        }
    }
    return true;
}
static_assert(names_are_unique());

// A name that ends in a letter (`m`, `qThreadStopInfo`) is followed by nothing, by punctuation, or by a
// number or thread-id. Anything else is another packet, and ours to answer by the empty reply:
// `MultiMemRead:…` is no `M`.
bool begins_arguments(std::string_view rest) {
    std::string_view word = rest.substr(0, rest.find_first_of(";:,="));
    if (word.starts_with('p')) word.remove_prefix(1);
    return word.find_first_not_of("0123456789abcdefABCDEF-.x") == std::string_view::npos;
}

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

bool name_matches(const Packet& packet, std::string_view payload) {
    if (packet.match == Match::exact) return payload == packet.name;
    if (!payload.starts_with(packet.name)) return false;
    return !is_letter(packet.name.back()) || begins_arguments(payload.substr(packet.name.size()));
}

}  // namespace

std::span<const Packet> packet_table() { return table; }

const Packet* find_packet(std::string_view payload) {
    const Packet* best = nullptr;
    for (const Packet& packet : table) {
        if (name_matches(packet, payload) && (best == nullptr || packet.name.size() > best->name.size())) {
            best = &packet;
        }
    }
    return best;
}

}  // namespace exo::stub
