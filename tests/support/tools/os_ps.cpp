// os_ps RAMFILE REGISTERS.txt [READ_COST_US]: what a Linux guest that QEMU left in files executes, for
// developers. One line a task, then the saved registers of those that run on no vCPU. RAMFILE as for
// os_probe; in REGISTERS.txt lines `KGS=…` may add each vCPU's kernel_gs_base, which HMP does not print.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "backends/arch/x86_64.h"
#include "os-awareness/os.h"
#include "tests/support/qemu_guest.h"

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point begin) {
    return std::chrono::duration<double, std::milli>{Clock::now() - begin}.count();
}

std::vector<exo::RegisterSet> read_vcpus(const char* path) {
    std::ifstream file{path};
    const std::string text{std::istreambuf_iterator<char>{file}, {}};
    auto vcpus = exo::test::parse_info_registers(text);
    std::size_t at = 0;
    for (auto& vcpu : vcpus) {
        at = text.find("KGS=", at);
        if (at == std::string::npos) break;
        vcpu.set(exo::x86::k_gs_base, std::strtoull(text.c_str() + at + 4, nullptr, 16));
        ++at;
    }
    return vcpus;
}

std::string located(const exo::os::SymbolTable& symbols, exo::VirtualAddress address) {
    const auto found = symbols.locate(address);
    return found && raw(address) != 0 ? std::string{found->name} : "-";
}

void print(exo::os::OsAwareness& os) {
    for (const auto& finding : os.findings()) {
        std::printf("finding %-14s %s (%s)\n", finding.what.c_str(), finding.value.c_str(),
                    finding.how.c_str());
    }
    for (const auto& t : os.tasks()) {
        std::printf("task %u %u %c cpu=%u vcpu=%s %s%s wchan=%s [%s] [%s]", t.tgid, t.tid, t.state, t.cpu,
                    t.vcpu ? std::to_string(*t.vcpu).c_str() : "-", t.kernel_thread ? "k" : "u",
                    t.idle ? "i" : "", located(os.symbols(), t.wchan).c_str(), t.comm.c_str(),
                    t.process.c_str());
        if (!t.vcpu) {
            const auto registers = os.saved_registers(t);
            if (registers) {
                std::printf(
                    " rip=%s rsp=%s",
                    located(os.symbols(), exo::VirtualAddress{*registers->get(exo::x86::rip)}).c_str(),
                    exo::hex(*registers->get(exo::x86::rsp)).c_str());
            } else {
                std::printf(" registers: %s", registers.error().message.c_str());
            }
        }
        std::printf("\n");
    }
    for (const auto& problem : os.problems()) std::printf("problem %s\n", problem.c_str());
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::fputs("usage: os_ps RAMFILE REGISTERS.txt [READ_COST_US]\n", stderr);
        return 2;
    }
    auto memory = exo::test::RamFile::open(argv[1]);
    if (!memory) {
        std::fprintf(stderr, "%s\n", memory.error().message.c_str());
        return 1;
    }
    if (argc > 3) (*memory)->set_read_cost(std::atof(argv[3]));
    const auto vcpus = read_vcpus(argv[2]);
    exo::os::ProbeFailure failure;
    auto begin = Clock::now();
    const auto os = exo::os::probe({**memory, vcpus, {}}, exo::os::Choice::automatic, failure);
    if (!os) {
        for (const auto& step : failure.steps) std::printf("step: %s\n", step.c_str());
        return 1;
    }
    std::printf("probe %.1f ms\n", milliseconds_since(begin));
    for (int round = 0; round < 3; ++round) {
        begin = Clock::now();
        const auto before = (*memory)->reads();
        const auto refreshed = os->refresh(vcpus);
        std::printf("refresh %.1f ms, %zu tasks, %zu reads\n", milliseconds_since(begin), os->tasks().size(),
                    (*memory)->reads() - before);
        if (!refreshed) {
            std::printf("refresh: %s\n", refreshed.error().message.c_str());
            return 1;
        }
    }
    print(*os);
    return 0;
}
