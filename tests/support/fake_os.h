// A kernel made of nothing: a list of tasks that the test writes.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "os-awareness/os.h"
#include "tests/support/fake_processes.h"

namespace exo::test {

// Pages that a test maps, each range to one range of physical memory.
struct FakeMapping {
    std::uint64_t start = 0;
    std::uint64_t size = 0;  // multiple of 4 KiB
    std::uint64_t physical = 0;
    bool writable = true;
    bool executable = true;
    bool user = false;
};

class FakeSpace final : public AddressSpace {
public:
    FakeSpace(PhysicalMemory& memory, std::vector<FakeMapping> mappings)
        : memory_(memory), mappings_(std::move(mappings)) {}

    Result<Translation> translate(VirtualAddress address) override;
    [[nodiscard]] PhysicalMemory& physical() override { return memory_; }
    std::optional<VirtualAddress> next_mapped(VirtualAddress address) override;

private:
    PhysicalMemory& memory_;
    std::vector<FakeMapping> mappings_;
};

// What the guest runs, owned by the test: it can change between two stops.
struct FakeKernel {
    static constexpr std::uint64_t text = 0xffffffff81000000;  // maps physical 0

    bool present = false;
    std::vector<os::Task> tasks;
    std::map<VirtualAddress, RegisterSet> saved;  // by task
    std::map<VirtualAddress, RegisterSet> user;   // of user mode, of those that are not in it; by task
    std::map<VirtualAddress, std::vector<FakeMapping>> user_memory;
    std::vector<std::string> problems;
    os::KernelLog log;
    std::map<std::uint64_t, os::Backtrace> backtraces;           // by the stack pointer that they begin at
    std::uint64_t per_cpu_start = 0x1000, per_cpu_end = 0x9000;  // CPU n's are 0xffff888000000000 + n MiB up
    FakeProcesses processes;                                     // told where the test has any
    std::vector<os::Module> modules;
    std::string module_file = "a module's symbol file";
    os::SymbolTable symbols;
    std::string symbol_file = "the symbol file, with # $ } * and \x03 in it";
    std::vector<std::byte> build_id;  // empty: not known
    std::uint64_t slide = 0;
    std::uint64_t mapped = 1U << 20U;  // bytes of physical memory at `text`
    std::function<void()> on_look;     // called once, during the next refresh() or current_task()
    int probes = 0;
    int refreshes = 0;
    int tasks_told = 0;       // calls of current_task()
    bool lists_only = false;  // only refresh() can tell
    int module_lists = 0;
    int module_files = 0;
};

// Finds `kernel` while it is present.
std::function<std::unique_ptr<os::OsAwareness>(const os::ProbeContext&, os::ProbeFailure&)> fake_probe(
    FakeKernel& kernel);

}  // namespace exo::test
