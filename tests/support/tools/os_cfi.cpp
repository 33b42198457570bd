// os_cfi VMLINUX OUT: call frame information of a kernel that does not run, for developers. VMLINUX: the ELF
// file inside a vmlinuz. Writes OUT (the bytes of .debug_frame) and OUT.symbols (as nm prints them, with the
// marks) to make an ELF file of.
#include <elf.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

#include "os-awareness/linux/kallsyms.h"
#include "os-awareness/linux/orc_frames.h"
#include "tests/support/fake_memory.h"

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point begin) {
    return std::chrono::duration<double, std::milli>{Clock::now() - begin}.count();
}

// The kernel's half of a vmlinux, as if it lay in RAM at its link-time addresses.
class VmlinuxSpace : public exo::AddressSpace {
public:
    explicit VmlinuxSpace(std::string file) {
        Elf64_Ehdr header{};
        std::memcpy(&header, file.data(), sizeof header);
        for (int i = 0; i < header.e_phnum; ++i) {
            Elf64_Phdr segment{};
            std::memcpy(&segment, file.data() + header.e_phoff + i * sizeof segment, sizeof segment);
            if (segment.p_type != PT_LOAD || segment.p_vaddr < base) continue;
            const auto end = segment.p_vaddr - base + segment.p_memsz;
            if (image_.size() < end) image_.resize(end);
            std::memcpy(image_.data() + (segment.p_vaddr - base), file.data() + segment.p_offset,
                        segment.p_filesz);
        }
        image_.resize((image_.size() + 4095) / 4096 * 4096);
        memory_.add_ram(exo::PhysicalAddress{0}, image_.size());
        std::memcpy(memory_.bytes(exo::PhysicalAddress{0}, image_.size()).data(), image_.data(),
                    image_.size());
    }

    exo::Result<exo::Translation> translate(exo::VirtualAddress a) override {
        if (raw(a) < base || raw(a) - base >= image_.size()) {
            return exo::fail(exo::Errc::bad_address, "not in the image: " + exo::hex(a));
        }
        return exo::Translation{exo::PhysicalAddress{raw(a) - base}, 4096};
    }
    exo::PhysicalMemory& physical() override { return memory_; }
    [[nodiscard]] exo::ConstBytes image() const { return image_; }
    [[nodiscard]] exo::VirtualAddress end() const { return start + image_.size(); }

    static constexpr std::uint64_t base = 0xffff'ffff'8100'0000;
    static constexpr exo::VirtualAddress start{base};

private:
    std::vector<std::byte> image_;
    exo::test::FakeMemory memory_;
};

void write_symbols(const std::string& path, const exo::os::SymbolTable& symbols, exo::VirtualAddress marks) {
    std::ofstream out{path};
    const auto line = [&](exo::VirtualAddress address, char type, std::string_view name) {
        out << exo::hex(address).substr(2) << ' ' << type << ' ' << name << '\n';
    };
    for (const auto& mark : exo::os::unwind_marks) line(marks + mark.offset, 'T', mark.symbol);
    for (const auto& symbol : symbols.by_address()) line(symbol.address, symbol.type, symbols.name(symbol));
}

int run(const char* vmlinux, const std::string& out) {
    std::ifstream file{vmlinux, std::ios::binary};
    VmlinuxSpace space{{std::istreambuf_iterator<char>{file}, {}}};
    const auto kallsyms = exo::os::parse_kallsyms(space.image(), VmlinuxSpace::start);
    if (!kallsyms) {
        std::fprintf(stderr, "%s\n", kallsyms.error().message.c_str());
        return 1;
    }
    const auto begin = Clock::now();
    const auto table = exo::os::read_kernel_orc(space, kallsyms->symbols);
    if (!table) {
        std::fprintf(stderr, "%s\n", table.error().message.c_str());
        return 1;
    }
    const auto read = milliseconds_since(begin);
    const exo::VirtualAddress marks{VmlinuxSpace::base - exo::os::KernelFrames::marks_below_image};
    exo::os::KernelFrames frames{0, marks};
    const auto added = frames.add(*table, kallsyms->symbols, space.end());
    frames.end_at_user_mode();
    const auto bytes = frames.take();
    std::printf("%s: read %.0f ms, all %.0f ms, %zu bytes%s%s\n", table->description().c_str(), read,
                milliseconds_since(begin), bytes.size(), added ? "" : ", ",
                added ? "" : added.error().message.c_str());
    std::ofstream{out, std::ios::binary}.write(reinterpret_cast<const char*>(bytes.data()),
                                               static_cast<std::streamsize>(bytes.size()));
    write_symbols(out + ".symbols", kallsyms->symbols, marks);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fputs("usage: os_cfi VMLINUX OUT\n", stderr);
        return 2;
    }
    return run(argv[1], argv[2]);
}
