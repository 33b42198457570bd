#include "tests/lab/vmm/options.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "tests/lab/vmm/fail.h"

namespace vmm {
namespace {

constexpr const char* usage =
    "small_vmm [--paused] MACHINE [--and MACHINE]...\n"
    "  A KVM monitor for tests: one process, one thread a vCPU. Each machine is of these:\n"
    "  --bare FILE        flat binary to run; vCPU n starts 16*n bytes into it\n"
    "    --mode real|long   16-bit real mode, or 64-bit with identity page tables (the default)\n"
    "    --load ADDRESS     where, guest-physical (0x100000; in real mode 0x1000)\n"
    "  --kernel FILE      bzImage to boot instead; --initrd FILE, --append TEXT\n"
    "  --vcpus N          1\n"
    "  --memory MIB       64; --low MIB of them below the hole under 4 GiB\n"
    "  --memory-kind K    private (anonymous), memfd (shared), hugetlb (shared)\n"
    "  --mappings K       one: the host maps all RAM at once; each: one mapping for each slot\n"
    "  --serial WHERE     COM1: - for standard output (the default), a file, unix:PATH\n"
    "  --channel WHERE    COM2, the same; without it there is none\n"
    "  --lock MS          a vCPU that is called out of KVM_RUN is busy for so long, one at a time\n"
    "  --paused           no vCPU runs before SIGUSR1; SIGUSR2 pauses all again\n";

uint64_t option_number(std::string_view option, const char* text) {
    char* end = nullptr;
    errno = 0;
    uint64_t value = std::strtoull(text, &end, 0);
    if (errno != 0 || end == text || *end != 0) fail(std::string(option) + ": not a number: " + text);
    return value;
}

template <class Value>
Value option_choice(std::string_view option, std::string_view text,
                    const std::vector<std::pair<std::string_view, Value>>& choices) {
    for (const auto& [name, value] : choices)
        if (name == text) return value;
    fail(std::string(option) + ": unknown: " + std::string(text));
}

void take_option(MachineOptions& machine, std::string_view option, const char* value) {
    if (option == "--bare")
        machine.bare = value;
    else if (option == "--mode")
        machine.mode = option_choice<Mode>(option, value, {{"real", Mode::real}, {"long", Mode::long_mode}});
    else if (option == "--load")
        machine.load = option_number(option, value);
    else if (option == "--kernel")
        machine.kernel = value;
    else if (option == "--initrd")
        machine.initrd = value;
    else if (option == "--append")
        machine.command_line = value;
    else if (option == "--vcpus")
        machine.vcpus = static_cast<unsigned>(option_number(option, value));
    else if (option == "--memory")
        machine.memory_mib = option_number(option, value);
    else if (option == "--low")
        machine.low_mib = option_number(option, value);
    else if (option == "--memory-kind")
        machine.memory_kind = option_choice<MemoryKind>(option, value,
                                                        {{"private", MemoryKind::anonymous},
                                                         {"memfd", MemoryKind::memfd},
                                                         {"hugetlb", MemoryKind::hugetlb}});
    else if (option == "--mappings")
        machine.one_mapping = option_choice<bool>(option, value, {{"one", true}, {"each", false}});
    else if (option == "--serial")
        machine.serial = value;
    else if (option == "--channel")
        machine.channel = value;
    else if (option == "--lock")
        machine.locked = std::chrono::milliseconds{option_number(option, value)};
    else
        fail("unknown option " + std::string(option) + " (--help lists them)");
}

void check_machine(const MachineOptions& machine) {
    constexpr unsigned most_vcpus = 16;  // each has its record and its stack (bare/record.inc)
    if (machine.bare.empty() == machine.kernel.empty()) fail("a machine needs --bare FILE or --kernel FILE");
    if (machine.vcpus == 0 || machine.vcpus > most_vcpus) fail("--vcpus: 1 to 16");
    if (machine.memory_mib < 4 || machine.memory_mib > 16 * 1024) fail("--memory: 4 to 16384 MiB");
}

}  // namespace

Options parse_options(int count, char** words) {
    Options options{.machines = {MachineOptions{}}};
    for (int index = 1; index < count; ++index) {
        std::string_view option = words[index];
        if (option == "--help") {
            std::fputs(usage, stdout);
            std::exit(0);
        }
        if (option == "--paused") {
            options.paused = true;
        } else if (option == "--and") {
            options.machines.emplace_back();
        } else {
            if (index + 1 == count) fail(std::string(option) + " needs a value (--help lists the options)");
            take_option(options.machines.back(), option, words[++index]);
        }
    }
    for (const MachineOptions& machine : options.machines) check_machine(machine);
    return options;
}

}  // namespace vmm
