#include "backends/qemu/target.h"

#include <algorithm>
#include <array>
#include <vector>

#include "backends/arch/x86_64.h"
#include "backends/qemu/execution.h"
#include "backends/qemu/memory.h"
#include "backends/qemu/registers.h"

namespace exo::qemu {
namespace {

using namespace std::chrono_literals;

// How long the monitor's text may serve the vCPUs of a running guest, each of them once.
constexpr auto snapshot_age = 50ms;

struct VcpuThread {
    std::uint32_t index = 0;  // QEMU's cpu-index: "CPU#index"
    pid_t thread = 0;         // on the host
};

// In the order of cpu-index, which is that of our vCPU numbers.
Result<std::vector<VcpuThread>> query_vcpus(Monitor& monitor) {
    const auto answer = TRY(monitor.execute("query-cpus-fast"));
    const auto* rows = answer.if_array();
    std::vector<VcpuThread> vcpus;
    for (const auto& row : rows != nullptr ? *rows : boost::json::array{}) {
        const auto* object = row.if_object();
        const auto* index = object != nullptr ? object->if_contains("cpu-index") : nullptr;
        const auto* thread = object != nullptr ? object->if_contains("thread-id") : nullptr;
        if (index == nullptr || thread == nullptr || !index->is_int64() || !thread->is_int64()) continue;
        const auto* machine = object->if_contains("target");
        if (machine != nullptr && *machine != boost::json::value("x86_64"))
            return fail(Errc::unsupported, "this QEMU emulates another CPU than x86-64");
        vcpus.push_back(
            {static_cast<std::uint32_t>(index->get_int64()), static_cast<pid_t>(thread->get_int64())});
    }
    if (vcpus.empty()) return fail(Errc::backend, "QEMU lists no vCPU");
    std::ranges::sort(vcpus, {}, &VcpuThread::index);
    return vcpus;
}

std::string version_of(Monitor& monitor) {
    const auto answer = monitor.execute("query-version");
    boost::system::error_code error;
    std::string text;
    for (const std::string_view part : {"/qemu/major", "/qemu/minor", "/qemu/micro"}) {
        const auto* number = answer ? answer->find_pointer(part, error) : nullptr;
        if (number == nullptr || !number->is_int64()) return "of unknown version";
        if (!text.empty()) text += '.';
        text += std::to_string(number->get_int64());
    }
    return text;
}

class MonitorConsole final : public Console {
public:
    explicit MonitorConsole(Monitor& monitor) : monitor_(monitor) {}
    Result<std::string> command(const std::string& line) override { return monitor_.hmp(line); }

private:
    Monitor& monitor_;
};

// QEMU takes a reset for its own end where it was started with -no-reboot (softmmu/runstate.c,
// qemu_system_reset_request()); QMP's set-action changes that (since 6.0).
bool ends_at_reset(const std::string& command_line) {
    return command_line.find("-no-reboot") != std::string::npos ||
           command_line.find("reboot=shutdown") != std::string::npos;
}

// Of QEMU's RunState (qapi/run-state.json) those that a user has to know of.
struct Condition {
    std::string_view state, text;
};
constexpr auto conditions = std::to_array<Condition>({
    {"shutdown", "the guest has shut down or was reset, and QEMU keeps it as it was then; it cannot go on"},
    {"guest-panicked", "the guest has told QEMU that it panicked"},
    {"internal-error", "QEMU met an internal error of its own or of KVM"},
    {"io-error", "a disk of the guest failed, and QEMU stopped it"},
    {"watchdog", "the guest's watchdog ran out"},
});

class QemuTarget final : public Target, public Controls {
public:
    QemuTarget(std::unique_ptr<Monitor> monitor, Process process, std::vector<VcpuThread> vcpus,
               JournalEntry identity)
        : monitor_(std::move(monitor)),
          process_(std::move(process)),
          vcpus_(std::move(vcpus)),
          kvm_(uses_kvm(*monitor_)),
          version_(version_of(*monitor_)),
          memory_(*monitor_, process_),
          execution_(*monitor_, process_, memory_, std::move(identity), kvm_),
          console_(*monitor_) {
        monitor_->watch(process_);
    }

    Result<void> load() { return memory_.load(); }

    [[nodiscard]] bool bound_to_thread() const override { return false; }  // sockets, process_vm_readv
    [[nodiscard]] std::string description() const override {
        return monitor_->description() + " (QEMU " + version_ + ", " + (kvm_ ? "KVM" : "TCG") + "), pid " +
               std::to_string(process_.pid()) + ", memory by " + memory_.access_method();
    }
    [[nodiscard]] const RegisterLayout& layout() const override { return x86::layout(); }
    [[nodiscard]] std::uint32_t vcpu_count() const override {
        return static_cast<std::uint32_t>(vcpus_.size());
    }
    [[nodiscard]] PhysicalMemory& memory() override { return memory_; }

    Result<bool> running() override {
        if (!process_.alive()) return fail(Errc::target_gone, "the guest is gone: QEMU has ended");
        if (execution_.attached()) return execution_.running();
        return TRY(query_run_state(*monitor_)).running;
    }

    Result<RegisterSet> read_registers(VcpuId vcpu) override {
        if (vcpu >= vcpus_.size()) return fail(Errc::no_such_thread, "no vCPU " + std::to_string(vcpu));
        if (auto* client = execution_.stopped_client()) {
            auto registers = TRY(client->read_registers(vcpu, layout()));
            if (text_is_fresh()) CHECK_OK(complete_from_text(vcpu, registers));
            return registers;
        }
        RegisterSet registers{layout()};
        CHECK_OK(load_snapshot(vcpu));
        const auto section = monitor_section(text_, vcpus_[vcpu].index);
        if (!section)
            return fail(Errc::backend, "QEMU's monitor shows no registers of vCPU " + std::to_string(vcpu));
        fill_from_monitor(registers, *section, Take::all);
        return registers;
    }

    Result<void> complete_registers(VcpuId vcpu, RegisterSet& registers) override {
        if (vcpu >= vcpus_.size()) return fail(Errc::no_such_thread, "no vCPU " + std::to_string(vcpu));
        if (!text_is_fresh()) CHECK_OK(load_text());
        return complete_from_text(vcpu, registers);
    }

    Result<void> write_registers(VcpuId vcpu, const RegisterSet& values,
                                 std::span<const RegisterNumber> numbers) override {
        auto* client = execution_.stopped_client();
        if (client == nullptr) return fail(Errc::busy, "registers cannot be written while the guest runs");
        text_.clear();
        for (const auto number : numbers)
            CHECK_OK(client->write_register(vcpu, number, values.bytes(number)));
        return {};
    }

    Result<void> move_to(VcpuId vcpu, std::uint64_t pc) override {
        auto* client = execution_.stopped_client();
        if (client == nullptr) return fail(Errc::busy, "registers cannot be written while the guest runs");
        text_.clear();
        return client->post_register(vcpu, x86::rip, std::as_bytes(std::span{&pc, 1}));
    }
    std::string condition() override {
        const auto state = query_run_state(*monitor_);
        const auto* row =
            state ? std::ranges::find(conditions, state->name, &Condition::state) : conditions.end();
        return row == conditions.end() ? std::string{} : std::string{row->text};
    }

    Result<VcpuState> vcpu_state(VcpuId vcpu) override {
        if (vcpu >= vcpus_.size()) return fail(Errc::no_such_thread, "no vCPU " + std::to_string(vcpu));
        if (!text_is_fresh()) CHECK_OK(load_text());
        const auto section = monitor_section(text_, vcpus_[vcpu].index);
        return section ? state_from_monitor(*section) : VcpuState{};
    }
    Result<std::uint64_t> read_msr(VcpuId /*vcpu*/, std::uint32_t /*number*/) override {
        return fail(Errc::unsupported,
                    std::string{"QEMU shows a debugger no other MSR than efer, fs_base, gs_base and "
                                "kernel_gs_base"} +
                        (kvm_ ? "; serve this guest with --backend kvm" : ""));
    }

    // Asked once more, QEMU answers when its main loop has carried the reset out. That a reset does not end
    // it stays so: SeaBIOS makes another one by itself (its resume.c, tryReboot()).
    Result<void> reset() override {
        const bool ends = ends_at_reset(command_line_of(process_.pid()));
        if (ends) CHECK_OK(monitor_->execute("set-action", {{"reboot", "reset"}}));
        const auto asked = monitor_->execute("system_reset");
        const auto carried_out = asked ? query_run_state(*monitor_) : fail(asked.error());
        text_.clear();
        execution_.registers_changed();
        memory_.guest_ran();
        if (!carried_out) return fail(carried_out.error());
        return {};
    }
    Result<void> nmi() override {
        CHECK_OK(monitor_->execute("inject-nmi"));
        return {};
    }

    [[nodiscard]] Execution* execution() override { return &execution_; }
    [[nodiscard]] Breakpoints* breakpoints() override { return &execution_; }
    [[nodiscard]] Controls* controls() override { return this; }
    [[nodiscard]] Console* console() override { return &console_; }

private:
    [[nodiscard]] bool text_is_fresh() const {
        return execution_.attached() && !execution_.running() && !text_.empty() &&
               text_generation_ == execution_.generation();
    }

    Result<void> load_text() {
        text_ = TRY(monitor_->hmp("info registers -a"));
        text_generation_ = execution_.generation();
        taken_at_ = Clock::now();
        served_.assign(vcpus_.size(), false);
        return {};
    }

    // While the guest runs, one text serves each vCPU once: whoever asks again wants news.
    Result<void> load_snapshot(VcpuId vcpu) {
        const bool old = text_.empty() || text_generation_ != execution_.generation() || served_[vcpu] ||
                         Clock::now() - taken_at_ > snapshot_age;
        if (old) CHECK_OK(load_text());
        served_[vcpu] = true;
        return {};
    }

    Result<void> complete_from_text(VcpuId vcpu, RegisterSet& registers) {
        const auto section = monitor_section(text_, vcpus_[vcpu].index);
        if (!section)
            return fail(Errc::backend, "QEMU's monitor shows no registers of vCPU " + std::to_string(vcpu));
        fill_from_monitor(registers, *section, Take::missing);
        return {};
    }

    std::unique_ptr<Monitor> monitor_;
    Process process_;
    std::vector<VcpuThread> vcpus_;
    bool kvm_;
    std::string version_;
    GuestMemory memory_;
    QemuExecution execution_;
    MonitorConsole console_;
    std::string text_;  // of info registers -a
    std::uint64_t text_generation_ = 0;
    Clock::time_point taken_at_{};
    std::vector<bool> served_;
};

}  // namespace

// The monitor knows threads by their numbers in QEMU's own pid namespace; the socket's peer is known in ours.
Result<Process> find_process(Monitor& monitor) {
    const auto thread = TRY(query_vcpus(monitor)).front().thread;
    const auto mark = monitor.command_line_mark();
    for (const auto& candidate : {monitor.process_hint(), process_of_thread(thread)}) {
        if (!candidate || !has_thread(*candidate, thread)) continue;
        if (mark.empty() || command_line_of(*candidate).find(mark) != std::string::npos)
            return Process::open(*candidate);
    }
    return fail(Errc::backend, "QEMU's process (its vCPU is thread " + std::to_string(thread) +
                                   ") is not to be seen from here; run on the guest's host");
}

bool uses_kvm(Monitor& monitor) {
    const auto answer = monitor.execute("query-kvm");
    const auto* object = answer ? answer->if_object() : nullptr;
    const auto* enabled = object != nullptr ? object->if_contains("enabled") : nullptr;
    return enabled != nullptr && enabled->is_bool() && enabled->get_bool();
}

Result<std::unique_ptr<Target>> open_target(std::unique_ptr<Monitor> monitor, Process process,
                                            JournalEntry identity) {
    auto vcpus = TRY(query_vcpus(*monitor));
    identity.uuid = monitor->uuid();
    auto target = std::make_unique<QemuTarget>(std::move(monitor), std::move(process), std::move(vcpus),
                                               std::move(identity));
    CHECK_OK(target->load());
    return target;
}

}  // namespace exo::qemu
