#include "tests/lab/vmm/cpu.h"
#include "tests/lab/vmm/fail.h"
#include "tests/lab/vmm/load.h"

namespace vmm {
namespace {

constexpr uint64_t entry_distance = 16;
constexpr uint64_t long_load = 0x100000, real_load = 0x1000;
constexpr uint64_t stacks = 0x60000, stack_size = 0x2000;  // bare/record.inc counts on both
constexpr uint64_t real_stacks_end = 0x7000, real_stack_size = 0x200;

}  // namespace

void load_bare(const GuestMemory& memory, const MachineOptions& options, const std::vector<int>& vcpu_fds) {
    bool real = options.mode == Mode::real;
    uint64_t load = options.load.value_or(real ? real_load : long_load);
    if (real && (load % 16 != 0 || load > 0xf0000)) fail("--load: a segment of real mode starts there");
    std::vector<uint8_t> program = read_whole_file(options.bare);
    memory.write(load, program.data(), program.size());
    if (!real) write_long_mode_tables(memory, options.memory_mib * mib > memory.low_size() ? 20 : 4);
    for (uint64_t index = 0; index < vcpu_fds.size(); ++index) {
        Start start{.instruction = index * entry_distance, .rdi = index, .rsi = vcpu_fds.size()};
        if (real) {
            start.stack = real_stacks_end - index * real_stack_size;
            start_real_mode(vcpu_fds[index], load, start);
        } else {
            start.instruction += load;
            start.stack = stacks + (index + 1) * stack_size;
            start_long_mode(vcpu_fds[index], start);
        }
    }
}

}  // namespace vmm
