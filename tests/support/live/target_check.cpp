// target_check TARGET [--connect URI] [--bulk]: the target contract against a live guest. Exit status 0 if
// all checks passed. With --bulk also the speed of large and small reads.
#include <cstdio>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

#include "backends/registry.h"
#include "tests/support/target_contract.h"

namespace {

// CPU time of this process: the figures then hold on a busy machine too.
double cpu_seconds() {
    timespec now{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return double(now.tv_sec) + double(now.tv_nsec) / 1e9;
}

void measure_reads(exo::PhysicalMemory& memory) {
    const auto* largest = &memory.regions().front();
    for (const auto& region : memory.regions())
        if (region.kind == exo::MemoryRegion::Kind::ram && region.size > largest->size) largest = &region;
    const auto start_address = largest->start;
    const auto total = std::min<std::uint64_t>(largest->size, 1U << 30U);
    for (const std::size_t chunk : {std::size_t{65536}, std::size_t{1} << 20U, std::size_t{16} << 20U}) {
        std::vector<std::byte> buffer(chunk, std::byte{1});
        const double start = cpu_seconds();
        for (std::uint64_t at = 0; at + chunk <= total; at += chunk) {
            if (!memory.read(start_address + at, buffer))
                std::printf("read failed at +%llx\n", (unsigned long long)at);
        }
        const double took = cpu_seconds() - start;
        std::printf("     bulk read, %5zu KiB at a time: %.2f GB a CPU second\n", chunk / 1024,
                    double(total) / took / 1e9);
    }
    std::byte word[8];
    const int count = 100000;
    for (const std::uint64_t stride : {std::uint64_t{4096} * 7, std::uint64_t{4096} * 7, std::uint64_t{64}}) {
        const double start = cpu_seconds();
        for (int i = 0; i < count; ++i)
            static_cast<void>(memory.read(start_address + (std::uint64_t(i) * stride) % (total - 8), word));
        const double took = cpu_seconds() - start;
        std::printf("     8-byte read, %llu bytes apart: %.2f us\n", (unsigned long long)stride,
                    took / count * 1e6);
    }
}

}  // namespace

int main(int argc, char** argv) {
    exo::OpenOptions options;
    std::string name;
    bool bulk = false;
    for (int i = 1; i < argc; ++i) {
        const std::string_view argument = argv[i];
        if (argument == "--connect" && i + 1 < argc)
            options.connect = argv[++i];
        else if (argument == "--bulk")
            bulk = true;
        else
            name = argument;
    }
    const auto uri = exo::TargetUri::parse(name);
    if (!uri) return std::fprintf(stderr, "target_check: %s\n", uri.error().message.c_str()), 2;
    const auto target = exo::open_target(*uri, options);
    if (!target) return std::fprintf(stderr, "target_check: %s\n", target.error().message.c_str()), 1;
    int failures = 0;
    for (const auto& result : exo::test::check_target_contract(**target)) {
        std::printf("%-4s %s%s%s\n", result.ok ? "ok" : "FAIL", result.check.c_str(),
                    result.detail.empty() ? "" : ": ", result.detail.c_str());
        failures += result.ok ? 0 : 1;
    }
    if (bulk) measure_reads((*target)->memory());
    return failures == 0 ? 0 : 1;
}
