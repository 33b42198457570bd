// Handlers of packets: plain functions, one group a file, listed in stub/packet_table.cpp. Arguments are what
// follows the packet's wire name.
#pragma once

#include <string>
#include <string_view>

#include "rsp/file_io.h"
#include "rsp/process_query.h"
#include "rsp/requests.h"
#include "rsp/stop_reply.h"
#include "rsp/trace_requests.h"
#include "stub/reply.h"
#include "stub/session.h"

namespace exo::stub::handlers {

// What lldb is told that guests and their processes are.
constexpr std::string_view triple(bool of_32_bit = false) {
    return of_32_bit ? "i386-unknown-linux-gnu" : "x86_64-unknown-linux-gnu";
}

// general.cpp
Result<Reply> supported(Session& session, std::string_view arguments);
Result<Reply> start_no_ack(Session& session, std::string_view arguments);
Result<Reply> empty(Session& session, std::string_view arguments);
Result<Reply> just_ok(Session& session, std::string_view arguments);
Result<Reply> is_attached(Session& session, std::string_view arguments);
Result<Reply> offsets(Session& session, std::string_view arguments);
Result<Reply> thread_suffix_supported(Session& session, std::string_view arguments);
Result<Reply> list_threads_in_stop_reply(Session& session, std::string_view arguments);
Result<Reply> enable_error_strings(Session& session, std::string_view arguments);
Result<Reply> host_info(Session& session, std::string_view arguments);
Result<Reply> process_info(Session& session, std::string_view arguments);
Result<Reply> server_version(Session& session, std::string_view arguments);
Result<Reply> detach(Session& session, std::string_view arguments);
Result<Reply> kill(Session& session, std::string_view arguments);
Result<Reply> kill_process(Session& session, std::string_view arguments);
Result<Reply> attach(Session& session, std::string_view arguments);
Result<Reply> run_program(Session& session, std::string_view arguments);

// files.cpp
Result<Reply> transfer_exec_file(Session& session, const rsp::TransferRead& request);
Result<Reply> transfer_auxv(Session& session, const rsp::TransferRead& request);
Result<Reply> transfer_libraries(Session& session, const rsp::TransferRead& request);
Result<Reply> set_file_system(Session& session, std::string_view arguments);
Result<Reply> open_file(Session& session, const rsp::OpenFile& request);
Result<Reply> read_file(Session& session, const rsp::ReadFile& request);
Result<Reply> file_status(Session& session, const rsp::FileDescriptor& request);
Result<Reply> file_status_by_name(Session& session, const rsp::FileName& request);
Result<Reply> close_file(Session& session, const rsp::FileDescriptor& request);
Result<Reply> read_link(Session& session, const rsp::FileName& request);

// threads.cpp
Result<Reply> current_thread(Session& session, std::string_view arguments);
Result<Reply> first_threads(Session& session, std::string_view arguments);
Result<Reply> more_threads(Session& session, std::string_view arguments);
Result<Reply> thread_extra_info(Session& session, std::string_view arguments);
Result<Reply> thread_alive(Session& session, std::string_view arguments);
Result<Reply> thread_local_address(Session& session, const rsp::ThreadLocal& request);
Result<Reply> select_general_thread(Session& session, std::string_view arguments);
Result<Reply> select_resumed_thread(Session& session, std::string_view arguments);
Result<Reply> transfer_threads(Session& session, const rsp::TransferRead& request);
Result<Reply> transfer_osdata(Session& session, const rsp::TransferRead& request);

// platform.cpp
Result<Reply> first_process(Session& session, const rsp::ProcessQuery& query);
Result<Reply> next_process(Session& session, std::string_view arguments);
Result<Reply> process_by_pid(Session& session, std::string_view arguments);
Result<Reply> launch_server(Session& session, std::string_view arguments);
Result<Reply> attach_when_it_begins(Session& session, std::string_view arguments);
Result<Reply> attach_or_wait(Session& session, std::string_view arguments);

// lldb.cpp
Result<Reply> threads_info(Session& session, std::string_view arguments);
Result<Reply> thread_stop_info(Session& session, std::string_view arguments);
Result<Reply> watchpoint_support(Session& session, std::string_view arguments);
Result<Reply> memory_region_info(Session& session, std::string_view arguments);
// The keys of a stop reply that spare lldb one qThreadStopInfo a thread.
std::string lldb_stop_keys(Session& session);

// registers.cpp
Result<Reply> read_registers(Session& session, std::string_view arguments);
Result<Reply> write_registers(Session& session, std::string_view arguments);
Result<Reply> read_register(Session& session, std::string_view arguments);
Result<Reply> write_register(Session& session, std::string_view arguments);
Result<Reply> transfer_features(Session& session, const rsp::TransferRead& request);
// One register's value in hex, "xx…" while it is unavailable.
void append_register(std::string& out, const RegisterSet& registers, RegisterNumber number);
// Those of the layout's expedited registers that `thread` has.
void append_expedited(rsp::StopReply& reply, Session& session, const Thread& thread);

// memory.cpp
Result<Reply> read_memory(Session& session, const rsp::ReadMemory& request);
Result<Reply> read_memory_binary(Session& session, const rsp::ReadMemory& request);
Result<Reply> write_memory(Session& session, std::string_view arguments);
Result<Reply> write_memory_binary(Session& session, std::string_view arguments);
Result<Reply> search_memory(Session& session, const rsp::SearchMemory& request);
Result<Reply> checksum(Session& session, const rsp::Checksum& request);
Result<Reply> set_physical_mode(Session& session, std::string_view arguments);
Result<Reply> query_physical_mode(Session& session, std::string_view arguments);

// breakpoints.cpp
Result<Reply> insert_breakpoint_of_type(Session& session, char type, std::string_view arguments);
template <char type>  // a row for each type, since each has its own capability
Result<Reply> insert_breakpoint(Session& session, std::string_view arguments) {
    return insert_breakpoint_of_type(session, type, arguments);
}
Result<Reply> remove_breakpoint(Session& session, const rsp::Breakpoint& request);
Result<Reply> catch_system_calls(Session& session, const rsp::CatchSystemCalls& request);

// resume.cpp
Result<Reply> halt_reason(Session& session, std::string_view arguments);
Result<Reply> resume_actions(Session& session, std::string_view arguments);
Result<Reply> resume(Session& session, const rsp::Resume& request);
Result<Reply> go_on(Session& session, std::string_view arguments);
Result<Reply> go_on_with_signal(Session& session, std::string_view arguments);
Result<Reply> step(Session& session, std::string_view arguments);
Result<Reply> step_with_signal(Session& session, std::string_view arguments);
std::string stop_reply(Session& session, const RunControl::Stop& stop);
// Session::last_stop as a stop reply.
std::string stop_reply(Session& session);

// tracepoints.cpp
Result<Reply> trace_init(Session& session, std::string_view arguments);
Result<Reply> define_tracepoint(Session& session, std::string_view arguments);
Result<Reply> define_tracepoint_source(Session& session, const rsp::TracepointSource& request);
Result<Reply> define_trace_variable(Session& session, const rsp::DefineTraceVariable& request);
Result<Reply> enable_tracepoint(Session& session, const rsp::TracepointId& request);
Result<Reply> disable_tracepoint(Session& session, const rsp::TracepointId& request);
Result<Reply> trace_read_only(Session& session, const rsp::ReadOnlyRanges& request);
Result<Reply> start_trace(Session& session, std::string_view arguments);
Result<Reply> stop_trace(Session& session, std::string_view arguments);
Result<Reply> disconnected_tracing(Session& session, std::string_view arguments);
Result<Reply> trace_buffer_option(Session& session, std::string_view arguments);
Result<Reply> trace_notes(Session& session, std::string_view arguments);
Result<Reply> trace_status(Session& session, std::string_view arguments);
Result<Reply> tracepoint_status(Session& session, const rsp::TracepointId& request);
Result<Reply> trace_variable(Session& session, const rsp::TraceNumber& request);
Result<Reply> first_tracepoint(Session& session, std::string_view arguments);
Result<Reply> first_trace_variable(Session& session, std::string_view arguments);
Result<Reply> more_uploads(Session& session, std::string_view arguments);
Result<Reply> select_trace_frame(Session& session, const rsp::SelectTraceFrame& request);
Result<Reply> read_trace_buffer(Session& session, const rsp::ReadTraceBuffer& request);
Result<Reply> transfer_traceframe_info(Session& session, const rsp::TransferRead& request);

// non_stop.cpp
Result<Reply> set_non_stop(Session& session, std::string_view arguments);
Result<Reply> next_stopped(Session& session, std::string_view arguments);
Result<Reply> interrupt(Session& session, std::string_view arguments);

// monitor.cpp
Result<Reply> monitor(Session& session, std::string_view arguments);

}  // namespace exo::stub::handlers
