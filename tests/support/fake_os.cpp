#include "tests/support/fake_os.h"

#include <algorithm>
#include <utility>

#include "backends/arch/x86_64.h"

namespace exo::test {
namespace {

constexpr std::uint64_t page_size = 4096;

class FakeOs final : public os::OsAwareness {
public:
    FakeOs(FakeKernel& kernel, PhysicalMemory& memory)
        : kernel_(kernel), memory_(memory), space_(memory, {kernel_mapping()}) {}

    [[nodiscard]] std::string_view name() const override { return "linux"; }
    [[nodiscard]] std::string version() const override { return "0.0.0-fake"; }
    [[nodiscard]] std::span<const os::Finding> findings() const override { return findings_; }

    Result<void> refresh(std::span<const RegisterSet> /*vcpus*/) override {
        ++kernel_.refreshes;
        if (kernel_.on_look) std::exchange(kernel_.on_look, {})();
        if (!kernel_.present) return fail(Errc::not_found, "the banner is gone");
        tasks_ = kernel_.tasks;
        problems_ = kernel_.problems;
        return {};
    }
    std::optional<os::Task> current_task(const RegisterSet& /*registers*/, VcpuId vcpu) override {
        ++kernel_.tasks_told;
        if (kernel_.on_look) std::exchange(kernel_.on_look, {})();
        const auto it = std::ranges::find(kernel_.tasks, std::optional{vcpu}, &os::Task::vcpu);
        if (!kernel_.present || kernel_.lists_only || it == kernel_.tasks.end()) return std::nullopt;
        return *it;
    }
    [[nodiscard]] std::span<const os::Task> tasks() const override { return tasks_; }
    [[nodiscard]] std::span<const std::string> problems() const override { return problems_; }

    os::Processes* processes() override { return kernel_.processes.told() ? &kernel_.processes : nullptr; }
    Result<os::KernelLog> kernel_log() override { return kernel_.log; }

    Result<RegisterSet> saved_registers(const os::Task& task) override {
        const auto it = kernel_.saved.find(task.address);
        if (it == kernel_.saved.end()) return fail(Errc::bad_data, "no saved registers of " + task.comm);
        return it->second;
    }
    Result<os::UserRegisters> user_registers(const os::Task& task, const RegisterSet* vcpu) override {
        os::UserRegisters user{x86::process_layout()};
        const auto it = kernel_.user.find(task.address);
        const bool live = vcpu != nullptr && x86::in_user_mode(*vcpu);
        if (!live && it == kernel_.user.end())
            return fail(Errc::bad_data, task.comm + " has no user registers");
        const RegisterSet& from = live ? *vcpu : it->second;
        for (RegisterNumber number = 0; number < from.layout().registers.size(); ++number) {
            if (!from.available(number)) continue;
            user.values.set_bytes(number, from.bytes(number));
            if (live) user.places[number] = {.kind = os::RegisterPlace::Kind::vcpu, .number = number};
        }
        return user;
    }
    os::Backtrace backtrace(const RegisterSet& registers) override {
        const auto it = kernel_.backtraces.find(registers.get(x86::rsp).value_or(0));
        if (it == kernel_.backtraces.end()) return {{}, "the test has no backtrace of it"};
        return it->second;
    }
    Result<std::uint64_t> per_cpu_offset(std::uint32_t cpu) override {
        if (cpu > 1) return fail(Errc::not_found, "no CPU " + std::to_string(cpu));
        return 0xffff888000000000 + (std::uint64_t{cpu} << 20);
    }
    Result<VirtualAddress> per_cpu_variable(std::string_view symbol) override {
        const auto address = kernel_.symbols.find(symbol);
        if (!address) return fail(Errc::not_found, "no symbol " + std::string{symbol});
        return per_cpu_variable(*address);
    }
    Result<VirtualAddress> per_cpu_variable(VirtualAddress address) override {
        if (raw(address) >= kernel_.per_cpu_start && raw(address) < kernel_.per_cpu_end) return address;
        return fail(Errc::not_found, "no per-CPU variable is at " + hex(address));
    }
    [[nodiscard]] AddressSpace& kernel_space() override { return space_; }
    Result<std::unique_ptr<AddressSpace>> task_space(const os::Task& task) override {
        std::vector<FakeMapping> mappings{kernel_mapping()};
        if (const auto it = kernel_.user_memory.find(task.address); it != kernel_.user_memory.end()) {
            mappings.insert(mappings.end(), it->second.begin(), it->second.end());
        }
        return std::make_unique<FakeSpace>(memory_, std::move(mappings));
    }
    [[nodiscard]] const os::SymbolTable& symbols() const override { return kernel_.symbols; }
    // A module's memory is one symbol.
    std::optional<os::Place> locate(VirtualAddress address) override {
        for (const auto& module : kernel_.modules) {
            for (const auto& range : module.memory) {
                const auto offset = raw(address) - raw(range.start);
                if (offset < range.size) return os::Place{module.name + "_code", offset, module.name};
            }
        }
        const auto found = kernel_.symbols.locate(address);
        if (!found) return std::nullopt;
        return os::Place{std::string{found->name}, found->offset, {}};
    }
    [[nodiscard]] std::uint64_t slide() const override { return kernel_.slide; }
    Result<std::vector<std::byte>> build_id() override {
        if (kernel_.build_id.empty()) return fail(Errc::not_found, "the fake kernel has no build id");
        return kernel_.build_id;
    }
    [[nodiscard]] std::string symbol_file_name() const override { return "vmlinux-" + version(); }
    Result<std::vector<std::string>> write_symbol_file(os::ByteSink& sink, std::uint64_t moved) override {
        const std::string content = kernel_.symbol_file + (moved != 0 ? ", moved by " + hex(moved) : "");
        CHECK_OK(sink.write(std::as_bytes(std::span{content})));
        return std::vector<std::string>{};
    }
    Modules modules() override {
        ++kernel_.module_lists;
        return {kernel_.modules, {}};
    }
    Result<std::vector<std::string>> write_module_file(const os::Module& /*module*/,
                                                       os::ByteSink& sink) override {
        ++kernel_.module_files;
        CHECK_OK(sink.write(std::as_bytes(std::span{kernel_.module_file})));
        return std::vector<std::string>{};
    }

private:
    [[nodiscard]] FakeMapping kernel_mapping() const {
        return {.start = FakeKernel::text, .size = kernel_.mapped, .physical = 0};
    }

    FakeKernel& kernel_;
    PhysicalMemory& memory_;
    FakeSpace space_;
    std::vector<os::Task> tasks_;
    std::vector<std::string> problems_;
    std::vector<os::Finding> findings_{{"os", "linux", "the test"}};
};

}  // namespace

Result<Translation> FakeSpace::translate(VirtualAddress address) {
    for (const FakeMapping& mapping : mappings_) {
        const std::uint64_t offset = raw(address) - mapping.start;
        if (raw(address) < mapping.start || offset >= mapping.size) continue;
        return Translation{.physical = PhysicalAddress{mapping.physical + offset},
                           .page_size = page_size,
                           .writable = mapping.writable,
                           .user = mapping.user,
                           .executable = mapping.executable};
    }
    return fail(Errc::bad_address, hex(address) + " is not mapped");
}

std::optional<VirtualAddress> FakeSpace::next_mapped(VirtualAddress address) {
    if (translate(address)) return address;
    std::optional<VirtualAddress> next;
    for (const FakeMapping& mapping : mappings_) {
        const VirtualAddress start{mapping.start};
        if (start >= address && (!next || start < *next)) next = start;
    }
    return next;
}

std::function<std::unique_ptr<os::OsAwareness>(const os::ProbeContext&, os::ProbeFailure&)> fake_probe(
    FakeKernel& kernel) {
    return [&kernel](const os::ProbeContext& context,
                     os::ProbeFailure& failure) -> std::unique_ptr<os::OsAwareness> {
        ++kernel.probes;
        if (!kernel.present) {
            failure.steps.emplace_back("fake: no kernel is there");
            return nullptr;
        }
        return std::make_unique<FakeOs>(kernel, context.memory);
    };
}

}  // namespace exo::test
