// What one client can see and change. No I/O: packets in, replies out, so transcripts need no socket.
//
// All calls come one at a time, from the target thread if the target is bound to it, but for interrupt().
// While the guest runs (dispatch() answered Reply::Kind::resumed) the caller loops over poll_stop() until it
// gives the stop reply. In non-stop mode nothing is waited for: while NonStop::watches() and there is no
// packet to dispatch, the caller lets poll_stop() have the guest run, and sends what it gives.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rsp/requests.h"
#include "stub/machine.h"
#include "stub/non_stop.h"
#include "stub/packet.h"
#include "stub/program_wait.h"
#include "stub/reply.h"
#include "stub/run_control.h"
#include "stub/thread_map.h"
#include "stub/virtual_files.h"

namespace exo::stub {

struct SessionOptions {
    bool threads_are_vcpus = false;       // --threads vcpus
    bool hardware_only = false;           // --breakpoints hardware
    std::size_t packet_size = 1U << 20U;  // bytes of payload, told in qSupported
    std::string process;                  // --process: the one that a client has at connect, by PID or name
    bool multi = false;                   // --multi: a client has nothing at connect, and attaches
    std::uint16_t port = 0;               // where a second connection can be made by TCP; 0: nowhere
};

class Session {
public:
    Session(Machine& machine_, SessionOptions options_)
        : machine(machine_),
          options(std::move(options_)),
          run_control(machine_, options.threads_are_vcpus, options.hardware_only),
          non_stop(machine_, run_control,
                   {.stop = [this](const auto& stop) { return report(stop); },
                    .end_of_thread = [this](ThreadKey thread) { return end_of_thread(thread); }}) {}

    // A client is there: attaches what it is to have at connect.
    Result<void> open() { return options.multi ? Result<void>{} : attach_guest(); }
    // Stops the guest. The error stays in `open_error`: the client asks for it later.
    Result<void> attach_guest();
    // The client went away, in whatever state: breakpoints out, the guest as it was found. Idempotent.
    Result<void> close();

    // `payload` is unescaped. Never fails: every packet has a reply, if only the empty one.
    Reply dispatch(std::string_view payload);
    // Whether `payload` has to wait until the guest stops.
    [[nodiscard]] static bool waits_for_stop(std::string_view payload);
    // What ends the session of a guest that has ended: its exit as the stop reply.
    Reply exit_reply();
    // Whether dispatch() of `payload` may take so long that an acknowledgement comes too late.
    [[nodiscard]] static bool is_slow(std::string_view payload);
    // The stop reply once the guest has stopped, nothing within `limit`.
    std::optional<Reply> poll_stop(std::chrono::milliseconds limit);
    // Any thread.
    void interrupt() noexcept {
        interrupted_ = true;
        run_control.interrupt();
    }

    // The thread that `id` names; the current one for "any"; an error that says which is not there.
    Result<const Thread*> thread(const std::optional<rsp::ThreadId>& id);
    // The one that Hg selected, or that stopped last.
    Result<const Thread*> general();
    Result<RegisterSet> registers(const Thread& thread);
    // With those too that are slow to get.
    Result<RegisterSet> all_registers(const Thread& thread);
    Result<AddressSpace*> space(const Thread& thread);
    // To be read only; of a process' thread with what is in memory and not mapped.
    Result<AddressSpace*> readable_space(const Thread& thread);
    // Somebody else stopped or changed the guest: what is there now is looked at, and the first vCPU's thread
    // is the current one.
    void stop_at_first_vcpu();
    // session_processes.cpp: what is attached is in run_control.views.
    // Of whose thread g, m, Z and qXfer are: kernel_pid, or a process of the guest.
    [[nodiscard]] std::int64_t current_process() const;
    // Of the current process' threads; of a thread's registers, as the client sees it.
    const RegisterLayout& layout();
    const RegisterLayout& layout_of(const Thread& thread);
    Result<void> attach_process(std::int64_t pid);
    // With nothing attached: that process alone.
    Result<void> attach_only(std::int64_t pid);
    // That of a program that is yet to begin, or the one that is there: poll_stop() gives the stop reply.
    enum class Existing : std::uint8_t { counts, does_not_count };
    Result<void> attach_by_name(const std::string& name, Existing existing);
    Result<void> attach_kernel();
    Result<void> detach_process(std::int64_t pid);
    // All threads that the client can know, those of the current process first.
    void for_each_thread(const std::function<void(const Thread&)>& visit);
    Result<void> write_registers(const Thread& thread, const RegisterSet& values,
                                 std::span<const RegisterNumber> numbers);
    // Of the trace frame that is selected, null while none is.
    [[nodiscard]] const TraceFrame* selected_frame() const;
    // A client that is gdb. lldb takes a stop with `library` for a stop
    // (ProcessGDBRemote::SetThreadStopInfo).
    [[nodiscard]] bool takes_library_stops() const { return client.swbreak && !thread_suffix; }
    // What gdb knows of the life of a process; lldb has other words for it.
    [[nodiscard]] RunControl::Told told_of_processes() const {
        if (!takes_library_stops() || !client.multiprocess) return {};
        return {.forks = client.fork_events, .vforks = client.vfork_events, .execs = client.exec_events};
    }
    // Whether the client has to be told of the kernel as of a library, since it came later, or came anew.
    [[nodiscard]] bool kernel_is_library() const {
        const auto now = machine.os_generation();
        return machine.os() != nullptr && takes_library_stops() && now != opened_generation &&
               now != program_generation;
    }

    // State that handlers (stub/handlers/) read and write.
    Machine& machine;
    SessionOptions options;
    RunControl run_control;
    NonStop non_stop;
    rsp::ClientFeatures client;
    bool attached = false;
    bool running = false;
    bool guest_gone = false;                          // for good
    bool thread_suffix = false;                       // QThreadSuffixSupported: g, G, p, P name their thread
    bool list_threads_in_stop = false;                // QListThreadsInStopReply
    bool error_strings = false;                       // QEnableErrorStrings
    bool physical_addresses = false;                  // Qqemu.PhyMemMode
    std::optional<Error> open_error;                  // why no guest is attached
    std::uint64_t opened_generation = 0;              // Machine::os_generation() when the client came
    std::optional<std::uint64_t> program_generation;  // when it was last told the program or where that is
    RunControl::Stop last_stop;
    std::optional<rsp::ThreadId> general_thread;  // Hg
    bool threads_replaced = false;  // all of them, while the client has them stopped: monitor reset
    std::optional<rsp::ThreadId> continue_thread;  // Hc
    std::string threads_xml;                       // kept while the client reads it slice by slice
    std::string osdata_xml;
    OpenFiles files;  // vFile
    std::set<std::string, std::less<>>
        absent_files;                // of the guest, of which pages were not in memory: told once
    std::vector<std::string> news;   // for the user, when the guest runs next; one line each
    std::uint32_t file_process = 0;  // vFile:setfs; 0: the guest's first process
    // The trace frame that g, p, m and x answer from, in place of the guest; nothing: from the guest.
    std::optional<std::size_t> trace_frame;
    std::deque<std::string> uploads;           // qTsP and qTsV give the next
    std::atomic<bool> platform{false};         // a client that asks where to attach, and never does
    std::deque<std::string> listed_processes;  // qsProcessInfo gives the next
    std::string libraries_xml;                 // kept while the client reads it slice by slice
    // The modules that the client was last told of, by the paths of their files; nothing until it asks.
    std::optional<std::vector<std::string>> told_modules;
    // What the guest stopped for, while the client is told first that the modules changed: gdb takes a stop
    // with `library` for no more than that, and resumes (infrun.c, TARGET_WAITKIND_LOADED).
    std::optional<RunControl::Stop> held_stop;

private:
    Result<void> stop_guest();
    Result<Reply> handle(const Packet& packet, std::string_view arguments);
    // Non-stop mode.
    Result<void> make_stand(Stands what);
    [[nodiscard]] bool stands(Stands what);
    const Thread* find(ThreadKey thread);
    // session_processes.cpp
    Result<void> check_process(std::int64_t pid);
    Result<std::int64_t> find_process(const std::string& wanted);
    void stop_in_process(std::int64_t pid);
    const Thread* in_process(const Thread& thread, std::int64_t pid);
    Result<const Thread*> process_thread(std::int64_t pid, std::int64_t tid);
    Result<RegisterSet> user_registers(const Thread& thread, bool all);
    Reply process_exited(const RunControl::Stop& stop);
    Result<const Thread*> thread_while_running(const std::optional<rsp::ThreadId>& id);
    NonStop::Report report(const RunControl::Stop& stop);
    [[nodiscard]] std::string end_of_thread(ThreadKey thread) const;
    std::optional<Reply> poll_non_stop(std::chrono::milliseconds limit);
    void append_notifications(Reply& reply);
    [[nodiscard]] bool modules_changed();
    Reply reported_stop();

    std::optional<Reply> poll_program(std::chrono::milliseconds limit);

    std::map<ThreadKey, Thread> seen_;  // in_process()
    std::optional<ProgramWait> program_wait_;
    std::atomic<bool> interrupted_{false};  // what program_wait_ has to hear
};

}  // namespace exo::stub
