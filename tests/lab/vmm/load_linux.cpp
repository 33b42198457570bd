#include <asm/bootparam.h>

#include <algorithm>
#include <cstring>

#include "tests/lab/vmm/acpi.h"
#include "tests/lab/vmm/cpu.h"
#include "tests/lab/vmm/fail.h"
#include "tests/lab/vmm/load.h"

namespace vmm {
namespace {

constexpr uint64_t boot_parameters = 0x7000, command_line = 0x40000, boot_stack = 0x8000;
constexpr uint64_t low_end = 0x9fc00, kernel_load = 0x100000;
constexpr uint64_t entry_64bit = 0x200;      // boot.rst, "64-bit Boot Protocol"
constexpr uint32_t boot_magic = 0x53726448;  // "HdrS"
constexpr uint16_t can_load_64bit = 1;       // XLF_KERNEL_64
constexpr uint8_t loader_unknown = 0xff;
constexpr uint32_t usable = 1, reserved = 2;  // kinds of e820 entries

setup_header read_setup_header(const std::vector<uint8_t>& image, const std::string& path) {
    setup_header header{};
    constexpr size_t at = offsetof(boot_params, hdr);
    if (image.size() < at + sizeof header) fail(path + " is not a bzImage");
    std::memcpy(&header, &image[at], sizeof header);
    if (header.header != boot_magic || header.version < 0x20c || !(header.xloadflags & can_load_64bit))
        fail(path + " is not a bzImage of a 64-bit kernel");
    return header;
}

void add_region(boot_params& parameters, uint64_t from, uint64_t to, uint32_t kind) {
    if (from >= to) return;
    boot_e820_entry& entry = parameters.e820_table[parameters.e820_entries++];
    entry.addr = from;
    entry.size = to - from;
    entry.type = kind;
}

void describe_memory(boot_params& parameters, const GuestMemory& memory) {
    add_region(parameters, 0, low_end, usable);
    add_region(parameters, low_end, kernel_load, reserved);  // the ACPI tables are in it
    for (const MemorySlot& slot : memory.slots())
        add_region(parameters, std::max(slot.guest, kernel_load), slot.guest + slot.size, usable);
}

// As high as the kernel takes it, on a page.
void load_initrd(boot_params& parameters, const GuestMemory& memory, const std::string& path) {
    std::vector<uint8_t> initrd = read_whole_file(path);
    uint64_t end = std::min(memory.low_size(), uint64_t{parameters.hdr.initrd_addr_max} + 1);
    uint64_t lowest = kernel_load + parameters.hdr.init_size;
    if (end < lowest + initrd.size()) fail("the kernel and its initrd do not fit into memory (--memory)");
    uint64_t address = (end - initrd.size()) & ~uint64_t{0xfff};
    memory.write(address, initrd.data(), initrd.size());
    parameters.hdr.ramdisk_image = static_cast<uint32_t>(address);
    parameters.hdr.ramdisk_size = static_cast<uint32_t>(initrd.size());
}

}  // namespace

void load_linux(const GuestMemory& memory, const MachineOptions& options, const std::vector<int>& vcpu_fds) {
    std::vector<uint8_t> image = read_whole_file(options.kernel);
    boot_params parameters{};
    parameters.hdr = read_setup_header(image, options.kernel);
    size_t setup_size = (parameters.hdr.setup_sects == 0 ? 5UL : parameters.hdr.setup_sects + 1UL) * 512;
    if (setup_size >= image.size()) fail(options.kernel + " is cut off");
    memory.at(kernel_load, parameters.hdr.init_size);  // it unpacks itself there
    memory.write(kernel_load, &image[setup_size], image.size() - setup_size);

    const std::string& words = options.command_line;
    if (words.size() > parameters.hdr.cmdline_size) fail("--append is longer than the kernel takes");
    memory.write(command_line, words.c_str(), words.size() + 1);
    parameters.hdr.cmd_line_ptr = static_cast<uint32_t>(command_line);
    parameters.hdr.type_of_loader = loader_unknown;
    parameters.hdr.vid_mode = 0xffff;  // as it is
    describe_memory(parameters, memory);
    if (!options.initrd.empty()) load_initrd(parameters, memory, options.initrd);
    memory.write(boot_parameters, &parameters, sizeof parameters);

    write_acpi_tables(memory, static_cast<unsigned>(vcpu_fds.size()));
    write_long_mode_tables(memory, 4);
    start_long_mode(vcpu_fds.front(),
                    {.instruction = kernel_load + entry_64bit, .stack = boot_stack, .rsi = boot_parameters});
}

}  // namespace vmm
