#include "os-awareness/page_tables.h"

#include <utility>

namespace exo::os {

SplitAddressSpace::SplitAddressSpace(AddressSpace& kernel, std::unique_ptr<AddressSpace> user)
    : kernel_(&kernel), user_(std::move(user)) {}

Result<Translation> SplitAddressSpace::translate(VirtualAddress address) {
    if (raw(address) >> 63 != 0) return kernel_->translate(address);
    if (!user_) return fail(Errc::bad_address, hex(address) + " is a user address, and this task has none");
    return user_->translate(address);
}

void SplitAddressSpace::forget() {
    kernel_->forget();
    if (user_) user_->forget();
}

std::optional<VirtualAddress> SplitAddressSpace::next_mapped(VirtualAddress address) {
    constexpr VirtualAddress upper_half{std::uint64_t{1} << 63};
    if (address < upper_half) {
        const auto found = user_ ? user_->next_mapped(address) : std::nullopt;
        if (found && *found < upper_half) return found;
        address = upper_half;
    }
    return kernel_->next_mapped(address);
}

}  // namespace exo::os
