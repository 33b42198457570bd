#include "stub/program_wait.h"

#include <algorithm>
#include <utility>

namespace exo::stub {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t longest_comm = 15;
// How long stop() may have to wait.
constexpr auto one_look = 50ms;
// Whether the kernel whose functions are watched is still there: nothing else tells of a guest that has been
// rebooted.
constexpr auto between_looks = 2s;

std::string_view file_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

tl::unexpected<Error> cannot_wait(const std::string& name, const std::string& why) {
    return fail(Errc::unsupported, "cannot wait for " + name + ": " + why);
}

}  // namespace

bool has_name(std::string_view comm, std::string_view name) {
    return !comm.empty() && comm == name.substr(0, longest_comm);
}

bool is_program(std::string_view comm, std::string_view path, std::string_view name) {
    const auto file = file_name(path);
    if (file == name && !name.empty()) return true;
    if (!has_name(comm, name)) return false;
    // What is cut off may tell them apart.
    return name.size() <= longest_comm || !has_name(comm, file);
}

ProgramWait::ProgramWait(Machine& machine, std::string name, Tell tell)
    : machine_(machine), name_(std::move(name)), tell_(std::move(tell)), control_(machine, false) {}

void ProgramWait::stop() noexcept {
    stopping_ = true;
    control_.interrupt();
}

Result<std::optional<std::int64_t>> ProgramWait::run() {
    CHECK_OK(begin());
    while (!stopping_) {
        if (const auto process = TRY(poll(one_look))) return process;
    }
    CHECK_OK(cancel());
    return std::nullopt;
}

Result<void> ProgramWait::begin() {
    CHECK_OK(check_can_begin());
    auto attached = attach();
    if (!attached) static_cast<void>(cancel());
    return attached;
}

Result<std::optional<std::int64_t>> ProgramWait::poll(std::chrono::milliseconds limit) {
    auto found = next(limit);
    if (!found) static_cast<void>(cancel());
    return found;
}

Result<void> ProgramWait::cancel() {
    auto detached = machine_.target().execution()->detach();
    control_.forget();
    machine_.forget();
    if (!detached && detached.error().code == Errc::target_gone) return {};
    return detached;
}

Result<void> ProgramWait::check_can_begin() {
    auto& target = machine_.target();
    if (target.execution() == nullptr || target.breakpoints() == nullptr)
        return cannot_wait(name_,
                           target.description() + " cannot be run and stopped, so no program begins there");
    if (TRY(target.running())) return {};
    const std::string why = target.condition();
    return cannot_wait(name_, "the guest is paused, so no program begins there" +
                                  (why.empty() ? "; let it run first" : ": " + why));
}

// Of the kernel that is there now, if one is.
Result<void> ProgramWait::check_kernel() {
    const auto* os = machine_.os();
    if (os == nullptr) {
        tell_("no operating system is recognised yet: its kernel is waited for");
        return {};
    }
    if (!os->symbols().find("start_thread"))
        return cannot_wait(name_, "this kernel has no start_thread, so it is not seen when programs begin");
    tell_of_others();
    tell_("waiting for a program called " + name_ + " to begin; ^C ends that");
    return {};
}

void ProgramWait::tell_of_others() {
    std::string pids;
    for (const os::Task& task : machine_.os()->tasks()) {
        if (task.kernel_thread || task.idle || task.tid != task.tgid || has_exited(task) ||
            !has_name(task.comm, name_))
            continue;
        pids += (pids.empty() ? "" : ", ") + std::to_string(task.tgid);
    }
    if (!pids.empty())
        tell_(name_ + " is there already, which is not what is waited for: " + pids +
              "; --process has one that is there");
}

bool ProgramWait::is_awaited(const os::Task& task) {
    auto* processes = machine_.os() != nullptr ? machine_.os()->processes() : nullptr;
    const bool needs_path = name_.size() > longest_comm || !has_name(task.comm, name_);
    const auto path =
        needs_path && processes != nullptr ? processes->proc_link(task, "exe") : fail(Errc::unsupported, "");
    return is_program(task.comm, path ? *path : std::string{}, name_);
}

Result<void> ProgramWait::attach() {
    CHECK_OK(machine_.target().execution()->attach());
    CHECK_OK(machine_.look());
    CHECK_OK(check_kernel());
    told_generation_ = machine_.os_generation();
    return go_on();
}

Result<void> ProgramWait::go_on() {
    next_look_ = Clock::now() + between_looks;
    control_.views = {};
    control_.tell_of_kernel(true);
    control_.await_program([this](const os::Task& task) { return is_awaited(task); });
    return control_.resume({.actions = {{}}});
}

// From where the kernel has it, as the process' own step.
Result<void> ProgramWait::step_to_user_mode() {
    using Kind = rsp::ResumeAction::Kind;
    control_.await_program({});
    control_.tell_of_kernel(false);
    return control_.resume(
        {.actions = {{.kind = Kind::step, .thread = {begun_->process, begun_->thread}}, {}}});
}

Result<std::optional<std::int64_t>> ProgramWait::next(std::chrono::milliseconds limit) {
    const auto stop = TRY(control_.poll(limit));
    if (stopping_) return std::nullopt;
    if (!stop) {
        if (!begun_) CHECK_OK(look_again());
        return std::nullopt;
    }
    CHECK_OK(check_stop(*stop));
    if (const auto begun = std::exchange(begun_, std::nullopt)) {
        // It may have been killed before.
        if (!stop->exited && stop->process == begun->process && stop->thread == begun->thread) {
            CHECK_OK(control_.leave());
            return begun->process;
        }
    } else if (stop->reason == rsp::StopReply::Reason::exec) {
        begun_ = stop;
        CHECK_OK(step_to_user_mode());
        return std::nullopt;
    }
    CHECK_OK(machine_.look_once());
    if (std::exchange(told_generation_, machine_.os_generation()) != machine_.os_generation())
        CHECK_OK(check_kernel());
    CHECK_OK(go_on());
    return std::nullopt;
}

// Whether it is one of ours.
Result<void> ProgramWait::check_stop(const RunControl::Stop& stop) {
    if (stop.exited && stop.process == kernel_pid)
        return fail(Errc::target_gone, "the guest has ended before " + name_ + " began");
    const bool own = std::exchange(own_stop_, false);
    if (stop.signal != rsp::Signal::interrupt || own) return {};
    const std::string why = machine_.target().condition();
    return fail(Errc::unsupported,
                "the guest was paused before " + name_ + " began" + (why.empty() ? "" : ": " + why));
}

// What cannot be looked at while it runs is looked at in a stop.
Result<void> ProgramWait::look_again() {
    if (own_stop_ || machine_.os() == nullptr || Clock::now() < next_look_) return {};
    next_look_ = Clock::now() + between_looks;
    auto looked = machine_.look();
    if (!looked && looked.error().code == Errc::target_gone) return looked;
    if (looked && machine_.os_generation() == told_generation_) return {};
    own_stop_ = true;
    control_.interrupt();
    return {};
}

}  // namespace exo::stub
