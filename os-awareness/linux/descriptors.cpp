#include "os-awareness/linux/descriptors.h"

#include <algorithm>
#include <array>

namespace exo::os {

Result<std::vector<OpenDescriptor>> Descriptors::of(std::uint64_t task, const GuestPath& root) const {
    const auto& layout = layout_->descriptors;
    std::vector<OpenDescriptor> all;
    const auto files = TRY(structures_->value(task, layout.files));
    if (files == 0) return all;  // it has ended
    const auto table = TRY(structures_->value(files, layout.table));
    const auto count = TRY(structures_->value(table, layout.count));
    const VirtualAddress array{TRY(structures_->value(table, layout.array))};
    if (count > most)
        return fail(Errc::bad_data, "a table of " + std::to_string(count) + " file descriptors");
    std::array<std::uint64_t, 512> some{};
    for (std::uint64_t first = 0; first < count; first += some.size()) {
        const auto here = std::span{some}.first(std::min<std::uint64_t>(some.size(), count - first));
        CHECK_OK(structures_->space().read(array + 8 * first, std::as_writable_bytes(here)));
        for (std::size_t i = 0; i < here.size(); ++i) {
            if (here[i] == 0) continue;
            all.push_back({static_cast<std::uint32_t>(first + i),
                           TRY(paths_->name(TRY(paths_->of_file(here[i])), root))});
        }
    }
    return all;
}

}  // namespace exo::os
