// The table of operating systems: to add one, write its probe and add a row.
#include <array>

#include "os-awareness/linux/linux.h"
#include "os-awareness/os.h"

namespace exo::os {
namespace {

struct ProbeRow {
    Choice choice;
    std::unique_ptr<OsAwareness> (*probe)(const ProbeContext&, ProbeFailure&);
};

constexpr auto probe_rows = std::to_array<ProbeRow>({
    {Choice::linux, linux_probe},
});

}  // namespace

std::unique_ptr<OsAwareness> probe(const ProbeContext& context, Choice choice, ProbeFailure& failure) {
    if (choice == Choice::none) {
        failure.steps.emplace_back("no operating system was looked for, as asked");
        return nullptr;
    }
    for (const ProbeRow& row : probe_rows) {
        if (choice != Choice::automatic && choice != row.choice) continue;
        if (auto found = row.probe(context, failure)) return found;
    }
    return nullptr;
}

}  // namespace exo::os
