#include "os-awareness/user_space.h"

#include <algorithm>

#include "backends/arch/x86_64.h"

namespace exo::os {
namespace {

constexpr std::uint64_t smallest_page = 4096;

}  // namespace

Result<Translation> UserSpace::translate(VirtualAddress address) {
    if (x86::in_upper_half(raw(address)))
        return fail(Errc::bad_address, hex(address) + " is the kernel's, and this is a process");
    auto found = whole_->translate(address);
    if (found && !found->user)
        return fail(Errc::bad_address, hex(address) + " is mapped for the kernel alone");
    return found;
}

std::optional<VirtualAddress> UserSpace::next_mapped(VirtualAddress address) {
    const auto found = whole_->next_mapped(address);
    return found && !x86::in_upper_half(raw(*found)) ? found : std::nullopt;
}

Result<void> UserSpace::check_writable(VirtualAddress address, std::uint64_t size,
                                       const IsPrivate& is_private) {
    for (std::uint64_t done = 0; done < size;) {
        const VirtualAddress at = address + done;
        const auto where = translate(at);
        if (!where) return {};  // the write itself says so
        if (!where->writable && (where->page_size != smallest_page || !is_private(where->physical))) {
            return fail(Errc::denied,
                        "the page at " + hex(at) +
                            " is mapped read-only in this process: a file or another process may "
                            "have it too, so it is not written");
        }
        done += std::min(where->left_in_page(), size - done);
    }
    return {};
}

}  // namespace exo::os
