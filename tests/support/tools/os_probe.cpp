// os_probe RAMFILE REGISTERS.txt [READ_COST_US]: the probe on a guest that QEMU left in files, for
// developers. RAMFILE: mem-path of `-object memory-backend-file,share=on`; REGISTERS.txt: HMP's `info
// registers -a`.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "os-awareness/linux/kernel_image.h"
#include "tests/support/qemu_guest.h"

namespace {

void print(const exo::os::KernelImage& image) {
    std::printf("banner    %s\n", image.banner.c_str());
    std::printf("image     %s-%s at %s\n", exo::hex(image.start).c_str(), exo::hex(image.end).c_str(),
                exo::hex(image.physical_start).c_str());
    std::printf("slide     %s\nroot      %s\n", exo::hex(image.slide).c_str(), exo::hex(image.root).c_str());
    std::printf("symbols   %zu\n", image.symbols.by_address().size());
    for (const auto& finding : image.findings) {
        std::printf("%-16s %s (%s)\n", finding.what.c_str(), finding.value.c_str(), finding.how.c_str());
    }
}

// As /proc/kallsyms prints it, so that the two can be compared.
void print_symbols(const exo::os::SymbolTable& symbols) {
    for (const auto& symbol : symbols.by_address()) {
        std::printf("%016llx %c %s\n", static_cast<unsigned long long>(raw(symbol.address)), symbol.type,
                    std::string{symbols.name(symbol)}.c_str());
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::fputs("usage: os_probe RAMFILE REGISTERS.txt [READ_COST_US | symbols]\n", stderr);
        return 2;
    }
    auto memory = exo::test::RamFile::open(argv[1]);
    if (!memory) {
        std::fprintf(stderr, "%s\n", memory.error().message.c_str());
        return 1;
    }
    std::ifstream file{argv[2]};
    const std::string text{std::istreambuf_iterator<char>{file}, {}};
    const auto vcpus = exo::test::parse_info_registers(text);
    const bool want_symbols = argc > 3 && std::string_view{argv[3]} == "symbols";
    if (argc > 3 && !want_symbols) (*memory)->set_read_cost(std::atof(argv[3]));

    const auto begin = std::chrono::steady_clock::now();
    exo::os::ProbeFailure failure;
    auto image = exo::os::find_kernel_image({**memory, vcpus, {}}, failure);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    if (image && want_symbols) {
        print_symbols(image->symbols);
        return 0;
    }
    std::printf("%zu vCPUs, %.3f s, %zu reads, %llu bytes\n", vcpus.size(), took.count(), (*memory)->reads(),
                static_cast<unsigned long long>((*memory)->bytes_read()));
    for (const auto& step : failure.steps) std::printf("step: %s\n", step.c_str());
    if (!image) {
        std::printf("no kernel: %s\n", image.error().message.c_str());
        return 1;
    }
    print(*image);
    return 0;
}
