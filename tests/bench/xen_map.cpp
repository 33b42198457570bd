// What a tool pays that maps a Xen domain's memory for each of its reads, as LibVMI without its cache and
// gdbsx do.
//
//     xen_map DOMID ADDRESS BYTES TIMES
//
// So many times: maps the pages that hold BYTES at the kernel address ADDRESS (as vCPU 0 translates it, once,
// before), copies them out and unmaps them. Prints "map NANOSECONDS OPERATIONS CRC", CRC as rsp_bench has it.
#include <sys/mman.h>

extern "C" {
#include <xenctrl.h>
#include <xenforeignmemory.h>
}

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "rsp/stop_reply.h"
#include "tests/bench/arguments.h"

namespace {

using exo::bench::die;
using exo::bench::number;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t page_size = 4096;

struct Plan {
    std::uint32_t domain = 0;
    std::uint64_t offset = 0;  // of the first byte, in the first page
    std::vector<xen_pfn_t> frames;
};

Plan plan(std::uint32_t domain, std::uint64_t address, std::uint64_t bytes) {
    xc_interface* xen = xc_interface_open(nullptr, nullptr, 0);
    if (xen == nullptr) die("no Xen");
    Plan made{domain, address % page_size, {}};
    for (std::uint64_t at = address - made.offset; at < address + bytes; at += page_size) {
        made.frames.push_back(xc_translate_foreign_address(xen, domain, 0, at));
        if (made.frames.back() == 0) die("nothing is mapped at the address");
    }
    xc_interface_close(xen);
    return made;
}

void read_once(xenforeignmemory_handle* memory, const Plan& from, std::vector<char>& into) {
    std::vector<int> errors(from.frames.size());
    void* pages = xenforeignmemory_map(memory, from.domain, PROT_READ, from.frames.size(), from.frames.data(),
                                       errors.data());
    if (pages == nullptr || std::ranges::any_of(errors, [](int error) { return error != 0; }))
        die("xenforeignmemory_map fails");
    std::memcpy(into.data(), static_cast<const char*>(pages) + from.offset, into.size());
    xenforeignmemory_unmap(memory, pages, from.frames.size());
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 5) die("usage: xen_map DOMID ADDRESS BYTES TIMES");
    const std::uint64_t bytes = number(arguments[3]);
    const std::uint64_t times = number(arguments[4]);
    const Plan from = plan(static_cast<std::uint32_t>(number(arguments[1])), number(arguments[2]), bytes);
    xenforeignmemory_handle* memory = xenforeignmemory_open(nullptr, 0);
    if (memory == nullptr) die("no foreign memory");
    std::vector<char> into(bytes, 1);
    const auto begin = Clock::now();
    for (std::uint64_t i = 0; i < times; ++i) read_once(memory, from, into);
    const auto time = Clock::now() - begin;
    xenforeignmemory_close(memory);
    std::printf("map %lld %llu %08x\n", static_cast<long long>(time.count()),
                static_cast<unsigned long long>(times),
                exo::rsp::crc32(0xffffffff, {into.data(), into.size()}));
    return 0;
}
