// The session's processes of the guest: attached and detached one by one, each with threads of its own.
#include <algorithm>
#include <charconv>

#include <spdlog/spdlog.h>

#include "backends/arch/i386.h"
#include "backends/arch/x86_64.h"
#include "rsp/stop_reply.h"
#include "stub/handlers/handlers.h"
#include "stub/program_wait.h"
#include "stub/session.h"

namespace exo::stub {
namespace {

std::string described(const os::Task& task) {
    return "process " + std::to_string(task.tgid) + " (" + task.process + ")";
}

tl::unexpected<Error> no_process(const std::string& which) {
    return fail(Errc::no_such_thread, "no " + which + " in the guest; `info os processes` lists them");
}

}  // namespace

std::int64_t Session::current_process() const {
    return general_thread ? general_thread->pid : last_stop.process;
}

const RegisterLayout& Session::layout() {
    const auto pid = current_process();
    if (pid == kernel_pid) return machine.layout();
    const auto& all = run_control.threads().threads();
    const auto found =
        std::ranges::find_if(all, [&](const Thread& thread) { return Views::guest_process(thread) == pid; });
    return found != all.end() ? layout_of(*in_process(*found, pid)) : x86::process_layout();
}

const RegisterLayout& Session::layout_of(const Thread& thread) {
    if (thread.of_kernel()) return machine.layout();
    return machine.is_32_bit(*thread.task) ? i386::process_layout() : x86::process_layout();
}

// One line that says why, where it cannot be attached.
Result<void> Session::check_process(std::int64_t pid) {
    CHECK_OK(machine.look_once());
    if (machine.os() == nullptr) {
        return fail(Errc::unsupported,
                    "no operating system is recognised, so its processes are not known; "
                    "`monitor info` says what was tried");
    }
    const os::Task* dead = nullptr;
    for (const os::Task& task : machine.os()->tasks()) {
        if (task.idle || (task.tgid != pid && task.tid != pid)) continue;
        if (task.kernel_thread) {
            return fail(Errc::unsupported,
                        std::to_string(pid) + " (" + task.comm +
                            ") is a kernel thread, which has no user mode: it is a thread of "
                            "the kernel, " +
                            std::to_string(kernel_pid));
        }
        if (task.tgid != pid)
            return fail(Errc::unsupported, std::to_string(pid) + " is a thread of " + described(task) +
                                               ", which can be attached");
        if (!has_exited(task)) return {};
        dead = &task;
    }
    if (dead != nullptr) return fail(Errc::no_such_thread, described(*dead) + " has exited; it is a zombie");
    return no_process("process " + std::to_string(pid));
}

// PID or NAME of --process.
Result<std::int64_t> Session::find_process(const std::string& wanted) {
    CHECK_OK(machine.look_once());
    std::int64_t pid = 0;
    const auto [end, error] = std::from_chars(wanted.data(), wanted.data() + wanted.size(), pid);
    if (error == std::errc{} && end == wanted.data() + wanted.size()) return pid;
    std::string others;
    for (const Thread& thread : run_control.threads().threads()) {
        const auto process = Views::guest_process(thread);
        if (!process || !has_name(thread.task->process, wanted) || has_exited(*thread.task) ||
            thread.task->tid != *process)
            continue;
        if (pid != 0) others += ", " + std::to_string(*process);
        if (pid == 0) pid = *process;
    }
    if (pid == 0) return no_process("process called " + wanted);
    if (others.empty()) return pid;
    return fail(Errc::bad_request, "several processes are called " + wanted + ": " + std::to_string(pid) +
                                       others + "; say --process PID");
}

Result<void> Session::attach_process(std::int64_t pid) {
    if (non_stop.on())
        return fail(Errc::unsupported,
                    "in non-stop mode the kernel alone is attached; processes in all-stop mode");
    if (options.threads_are_vcpus)
        return fail(Errc::unsupported, "threads are vCPUs here (--threads vcpus), which are of no process");
    if (run_control.views.has(pid))
        return fail(Errc::busy, "process " + std::to_string(pid) + " is attached already");
    CHECK_OK(check_process(pid));
    run_control.views.processes.insert(pid);
    stop_in_process(pid);
    return {};
}

Result<void> Session::attach_only(std::int64_t pid) {
    auto opened = attach_guest();
    open_error.reset();  // told here
    CHECK_OK(std::move(opened));
    auto attached_it = attach_process(pid);
    if (!attached_it) static_cast<void>(close());
    CHECK_OK(std::move(attached_it));
    run_control.views.kernel = false;
    return {};
}

Result<void> Session::attach_by_name(const std::string& name, Existing existing) {
    if (existing == Existing::counts) {
        run_control.forget_threads();
        const auto there = find_process(name);
        if (there) return attach_only(*there);
        if (there.error().code != Errc::no_such_thread) return fail(there.error());
    }
    program_wait_.emplace(machine, name, [](std::string_view line) { spdlog::info("{}", line); });
    interrupted_ = false;
    auto begun = program_wait_->begin();
    if (!begun) program_wait_.reset();
    return begun;
}

// Its end is the reply to the packet that has begun it.
std::optional<Reply> Session::poll_program(std::chrono::milliseconds limit) {
    auto process = program_wait_->poll(limit);
    if (process && !*process && !interrupted_) return std::nullopt;
    if (interrupted_ && !(process && *process)) {
        auto cancelled = process ? program_wait_->cancel() : Result<void>{};
        process = fail(cancelled ? Error{Errc::timed_out, "none has begun"} : std::move(cancelled).error());
    }
    program_wait_.reset();
    running = false;
    auto attached_it = process ? attach_only(**process) : Result<void>{fail(std::move(process).error())};
    if (attached_it) return text(handlers::stop_reply(*this));
    return text(render_error(attached_it.error(),
                             {.text_allowed = client.error_message, .lldb_strings = error_strings}));
}

void Session::stop_in_process(std::int64_t pid) {
    const auto& all = run_control.threads().threads();
    const auto is_own = [&](const Thread& thread) { return Views::guest_process(thread) == pid; };
    auto found = std::ranges::find_if(all, [&](const Thread& t) { return is_own(t) && t.vcpu; });
    if (found == all.end()) found = std::ranges::find_if(all, is_own);
    last_stop = {.thread = found != all.end() ? found->tid : 0, .process = pid};
    general_thread.reset();
    run_control.put_first(last_stop.thread);
}

Result<void> Session::attach_kernel() {
    run_control.views.kernel = true;
    stop_at_first_vcpu();
    general_thread.reset();
    return {};
}

// What others have of the guest stays as it is; without others the guest runs on.
Result<void> Session::detach_process(std::int64_t pid) {
    auto& views = run_control.views;
    if (!views.has(pid))
        return fail(Errc::no_such_thread, "process " + std::to_string(pid) + " is not attached");
    if (pid == kernel_pid) {
        views.kernel = false;
    } else {
        views.processes.erase(pid);
        if (views.processes.empty()) run_control.catch_calls({});
    }
    if (!views.any() || running) return close();
    for (const BreakpointKey& key : run_control.breakpoints.remove_of(pid))
        run_control.conditions.remove(key);
    if (last_stop.process == pid) {
        if (views.kernel) return attach_kernel();
        stop_in_process(*views.processes.begin());
    } else if (general_thread && general_thread->pid == pid) {
        general_thread.reset();
    }
    return {};
}

// As the client sees it: in user mode.
const Thread* Session::in_process(const Thread& thread, std::int64_t pid) {
    Thread& seen = seen_[thread.tid];
    seen = thread;
    seen.pid = pid;
    return &seen;
}

Result<const Thread*> Session::process_thread(std::int64_t pid, std::int64_t tid) {
    if (!run_control.views.has(pid))
        return fail(Errc::no_such_thread, "process " + std::to_string(pid) + " is not attached");
    const auto is_own = [&](const Thread& thread) { return Views::guest_process(thread) == pid; };
    const bool some = tid == rsp::ThreadId::any || tid == rsp::ThreadId::all;
    const ThreadKey wanted = !some ? tid : last_stop.process == pid ? last_stop.thread : pid;
    if (const Thread* found = run_control.find(wanted); found != nullptr && is_own(*found))
        return in_process(*found, pid);
    const auto& all = run_control.threads().threads();
    const auto first = std::ranges::find_if(all, is_own);
    if (some && first != all.end()) return in_process(*first, pid);
    return fail(Errc::no_such_thread,
                "process " + std::to_string(pid) + " has no thread " + std::to_string(wanted));
}

void Session::for_each_thread(const std::function<void(const Thread&)>& visit) {
    const auto& views = run_control.views;
    const auto current = current_process();
    const auto list = [&](std::int64_t pid) {
        for (const Thread& thread : run_control.threads().threads()) {
            if (pid == kernel_pid) {
                visit(thread);
            } else if (Views::guest_process(thread) == pid) {
                visit(*in_process(thread, pid));
            }
        }
    };
    if (views.has(current)) list(current);
    if (thread_suffix) return;  // lldb takes all that is listed for one process
    if (views.kernel && current != kernel_pid) list(kernel_pid);
    for (const auto pid : views.processes) {
        if (pid != current) list(pid);
    }
}

// In the layout of its process. Where the kernel has none, all are unavailable.
Result<RegisterSet> Session::user_registers(const Thread& thread, bool all) {
    const RegisterLayout& own = layout_of(thread);
    auto user = machine.user_registers(*thread.task, thread.vcpu, all);
    if (user) return &own == &i386::process_layout() ? i386::narrowed(user->values) : std::move(user->values);
    const bool lost = user.error().code == Errc::bad_data || user.error().code == Errc::bad_address ||
                      user.error().code == Errc::unsupported;
    if (!lost) return fail(std::move(user).error());
    spdlog::debug("{}", user.error().message);
    return RegisterSet{own};
}

Result<void> Session::write_registers(const Thread& thread, const RegisterSet& values,
                                      std::span<const RegisterNumber> numbers) {
    if (thread.of_kernel()) {
        if (!thread.vcpu)
            return fail(Errc::unsupported, "registers of a task that runs on no vCPU cannot be written");
        return machine.write_vcpu_registers(*thread.vcpu, values, numbers);
    }
    auto registers = TRY(machine.user_registers(*thread.task, thread.vcpu, true));
    if (&values.layout() == &i386::process_layout())
        return machine.write_user_registers(registers, thread.vcpu,
                                            i386::widen(values, numbers, registers.values));
    registers.values = values;
    return machine.write_user_registers(registers, thread.vcpu, numbers);
}

// The end of one process: the others stand, and without others the guest runs on.
Reply Session::process_exited(const RunControl::Stop& stop) {
    Reply reply = text(handlers::stop_reply(*this, stop));
    last_stop = {.process = stop.process};
    if (auto detached = detach_process(stop.process); !detached) {
        reply.before = console_output("exogdb: " + detached.error().message + "\n", options.packet_size);
    }
    return reply;
}

}  // namespace exo::stub
