// Non-stop mode (GDB manual, "Remote Non-Stop"): the client's threads stop and run one by one.
//
// The machine below stops and runs as a whole, with vCPUs that can be held. So:
//
// - A thread that stops on a vCPU (breakpoint, watchpoint, end of a step, `interrupt`) holds that vCPU. The
//   others go on at once. What else would run on that vCPU waits with it, since the guest's scheduler is not
//   told of it.
// - Every other thread is "(running)" to the client, whether it runs, waits for its turn or sleeps, as a
//   sleeping thread of a process is.
// - A thread that is told to stop while no vCPU runs it is stopped where it was switched away, with the
//   registers that it saved. It holds no vCPU: if something wakes it while others run, it goes on, and stops
//   of its own are passed over until the client has resumed it. While all vCPUs are held nothing wakes it.
// - `interrupt -a` stops all of them: every vCPU is held, and the guest stands. `continue -a` lets all go.
//   A thread that is resumed while others hold every vCPU runs when one of these does.
// - Steps of several threads at a time are made one after the other, those on vCPUs first.
// - What only a guest that stands can answer or do (the list of threads, breakpoints, writes, any vCont)
//   stops the machine for that moment, unseen by the client: pause(). Memory, and registers of threads that
//   hold a vCPU, are read while the rest runs.
// - Until the first vCont one thread is stopped, the one on vCPU 0: gdb 13.1 dies of an assertion when it is
//   told of two at connect (remote_target::wait, process_initial_stop_replies).
//
// RunControl does what a resume and a stop are made of; this class decides what it is asked to run.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "rsp/requests.h"
#include "stub/run_control.h"

namespace exo::stub {

class NonStop {
public:
    using Stop = RunControl::Stop;
    struct Report {
        std::string reply;  // the stop reply to queue
        // It tells of something else than the stop (`library`), which comes when the client has resumed.
        bool first_of_two = false;
    };
    // Stops in the client's words, while the guest stands as it did then.
    struct Words {
        std::function<Report(const Stop&)> stop;
        std::function<std::string(ThreadKey)> end_of_thread;
    };

    NonStop(Machine& machine, RunControl& run_control, Words words)
        : machine_(machine), run_control_(run_control), words_(std::move(words)) {}

    [[nodiscard]] bool on() const { return on_; }
    // With nothing attached, the mode alone.
    void turn_on() { on_ = true; }
    // The guest is attached and stands, for the next two. `first` stays stopped; `?` or tell_again() tells of
    // it.
    void begin(ThreadKey first);
    void end();
    // The client or the guest has gone; the mode stays what it is. Nothing is run before the next begin().
    void forget();

    // vCont. The machine stands: pause().
    Result<void> apply(const rsp::Resume& request);
    // vCtrlC: one thread that runs is stopped by SIGINT, the one that was resumed last if a vCPU runs it.
    // Which one is up to the server. Where none runs, what was resumed last has ended: `N`, to a client that
    // knows it. The machine stands.
    Result<void> interrupt(bool knows_no_resumed);

    // The machine stands, without a stop that the client sees, until the next poll().
    Result<void> pause();
    // Lets run what may, and takes what stops within `limit`.
    Result<void> poll(std::chrono::milliseconds limit);
    [[nodiscard]] bool stands() const { return stands_; }
    // Whether poll() has anything to do.
    [[nodiscard]] bool watches() const { return on_ && begun_ && !gone_ && (!stands_ || !all_held_); }
    // Queues the guest's exit.
    void guest_gone(std::string exit_reply);

    Result<void> check_stopped(ThreadKey thread) const;
    // Whether the client holds it, and as it was then. Null: it runs.
    [[nodiscard]] const Thread* stopped(ThreadKey thread) const;

    // The queue of stop replies. The first goes out as a notification or as the reply to `?`; the client
    // fetches the others by vStopped, each of which acknowledges the one before.
    [[nodiscard]] std::optional<std::string> take_notification();
    void tell_again();  // of all threads that are stopped
    std::string answer_halt_reason();
    std::string answer_acknowledgement();
    [[nodiscard]] bool gone() const { return gone_; }
    // The client has been told of the guest's exit, and has said so.
    [[nodiscard]] bool finished() const { return gone_ && queue_.empty(); }

private:
    class Actions;
    struct Stopped {
        Thread thread;              // its vCPU is held
        std::string reply;          // for `?`
        std::optional<Stop> later;  // Report::first_of_two
    };
    struct Step {
        rsp::ResumeAction action;  // names its thread
        Thread thread;
        bool begun = false;  // then where it is has to be looked up
    };
    struct Event {
        ThreadKey thread = 0;
        std::string reply;
    };

    Result<void> run();
    std::set<VcpuId> choose_step(std::optional<Thread>& stepping, rsp::Resume& request);
    void forget_ended();
    [[nodiscard]] bool all_stopped() const;
    void note(const Stop& stop);
    void record(const Stop& stop);
    void end_step(ThreadKey thread);
    void adopt_new_threads();
    void stop_vcpus(rsp::Signal signal);
    void apply_stop(const Actions& actions, const rsp::ThreadId& whom);
    void release(ThreadKey thread, const rsp::ResumeAction& action);
    [[nodiscard]] bool is_queued(ThreadKey thread) const;
    [[nodiscard]] const Thread* to_interrupt();
    Result<void> failed_to_run(const Error& error);

    Machine& machine_;
    RunControl& run_control_;
    Words words_;
    bool on_ = false;
    bool begun_ = false;  // there is a guest to run
    bool stands_ = true;
    bool all_held_ = false;  // stands_, and run() found nothing that may run
    bool gone_ = false;
    std::optional<ThreadKey> stepping_;  // by the last run()
    bool announced_ = false;             // the client knows of the first in the queue
    std::uint64_t os_generation_ = 0;
    std::map<ThreadKey, Stopped> stopped_;
    std::vector<Step> steps_;  // of threads that run, in the order in which they were asked for
    std::optional<ThreadKey> resumed_last_;
    std::deque<Event> queue_;
};

}  // namespace exo::stub
