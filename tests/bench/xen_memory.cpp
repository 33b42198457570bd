// What reading an HVM or PVH guest's memory costs on Xen, in dom0: `xen_memory NAME`. For each size of a read
// one line: mapping a frame for each read and unmapping it, as a debugger without windows does; the backend's
// first look (windows are mapped) and its later ones (bytes are copied), with the mappings that each took.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backends/xen/discovery.h"
#include "backends/xen/domain.h"
#include "backends/xen/foreign_frames.h"
#include "backends/xen/memory.h"

using namespace exo;

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t reads = 2000;

struct Cost {
    double microseconds = 0;  // a read
    double maps = 0;          // a read
    double frames = 0;        // a read
};

template <class Read>
Cost cost_of(const xen::MappingCosts& costs, std::span<const PhysicalAddress> places, Read&& read) {
    const auto before = costs;
    const auto start = Clock::now();
    for (const auto place : places) read(place);
    const std::chrono::duration<double, std::micro> passed = Clock::now() - start;
    const auto count = static_cast<double>(places.size());
    return {passed.count() / count, static_cast<double>(costs.calls - before.calls) / count,
            static_cast<double>(costs.frames - before.frames) / count};
}

// Places that can be read, within a part of memory as large as a kernel and what it points at.
std::vector<PhysicalAddress> places_in(xen::ForeignMemory& memory) {
    constexpr std::uint64_t part = 64U << 20U;
    std::mt19937_64 chance{1};
    const auto& region = memory.regions().front();
    std::vector<PhysicalAddress> places;
    for (std::size_t tries = 0; places.size() < reads && tries < 10 * reads; ++tries) {
        const PhysicalAddress place{chance() % std::min(part, region.size) & ~std::uint64_t{4095}};
        std::byte byte{};
        if (memory.read_some(place, {&byte, 1})) places.push_back(place);
    }
    return places;
}

void print(const char* what, std::size_t size, const Cost& cost) {
    std::printf("%-28s %6zu bytes: %9.2f us a read, %.4f mappings, %.2f frames\n", what, size,
                cost.microseconds, cost.maps, cost.frames);
}

void measure(xen::ForeignMemory& memory, xen::FrameMapper& frames) {
    const auto places = places_in(memory);
    for (const std::size_t size : {8U, 256U, 4096U}) {
        std::vector<std::byte> buffer(size);
        const auto alone = cost_of(frames.costs(), places, [&](PhysicalAddress place) {
            const std::uint64_t frame = raw(place) >> xen::page_shift;
            int error = 0;
            const auto page = frames.map({&frame, 1}, false, {&error, 1});
            if (!page) return;
            if (error == 0) std::memcpy(buffer.data(), *page, size);
            frames.unmap(*page, 1);
        });
        const auto read = [&](PhysicalAddress place) { static_cast<void>(memory.read(place, buffer)); };
        memory.release();
        const auto first = cost_of(memory.costs(), places, read);
        const auto later = cost_of(memory.costs(), places, read);
        print("a mapping for each read", size, alone);
        print("windows, first look", size, first);
        print("windows, later", size, later);
        std::printf("%-28s %6zu bytes: %9.1f times\n", "later, to a mapping each", size,
                    alone.microseconds / later.microseconds);
    }
}

Result<void> run(const std::string& name) {
    const auto domain = TRY(xen::Domain::find(TRY(xen::Hypervisor::open()), name));
    const auto target = TRY(xen::open(name));
    xen::ForeignFrames frames{domain.xen(), domain.id()};
    auto* memory = dynamic_cast<xen::ForeignMemory*>(&target->memory());
    if (memory == nullptr || memory->has_machine_addresses())
        return fail(Errc::unsupported, name + " is no HVM or PVH guest");
    CHECK_OK(target->execution()->attach());
    measure(*memory, frames);
    return target->execution()->detach();
}

}  // namespace

int main(int argc, char** argv) {
    const auto done = run(argc == 2 ? argv[1] : "");
    if (!done) std::fprintf(stderr, "%s\n", done.error().message.c_str());
    return done ? 0 : 1;
}
