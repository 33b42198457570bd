// Reads members of kernel structures, one at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>

#include "backends/api/memory.h"
#include "os-awareness/linux/constants.h"
#include "os-awareness/linux/process_layout.h"

namespace exo::os {

class Structures {
public:
    explicit Structures(AddressSpace& kernel) : kernel_(&kernel) {}

    [[nodiscard]] AddressSpace& space() const { return *kernel_; }

    // Where the member of the structure at `object` is. unsupported where this kernel has no such member,
    // bad_data where `object` is no address of the kernel.
    [[nodiscard]] Result<VirtualAddress> address(std::uint64_t object, const Member& member) const {
        if (!member) {
            return fail(Errc::unsupported,
                        std::string{"no "} + member.type + "." + member.path + " in this kernel's types");
        }
        if ((object & kernel_half) == 0) {
            return fail(Errc::bad_data,
                        std::string{"no struct "} + member.type + " can be at " + hex(object));
        }
        return VirtualAddress{object + member.field.offset};
    }

    // An integer or a pointer; of a larger member the first 8 bytes.
    [[nodiscard]] Result<std::uint64_t> value(std::uint64_t object, const Member& member) const {
        const auto at = TRY(address(object, member));
        std::uint64_t result = 0;
        auto bytes = std::as_writable_bytes(std::span{&result, 1});
        CHECK_OK(kernel_->read(at, bytes.first(std::min<std::size_t>(member.field.size, sizeof result))));
        return result;
    }
    // The same, 0 where the kernel has no such member.
    [[nodiscard]] Result<std::uint64_t> value_if_present(std::uint64_t object, const Member& member) const {
        return member ? value(object, member) : Result<std::uint64_t>{std::uint64_t{0}};
    }

    // The text that a member, or the pointer in it, has.
    [[nodiscard]] Result<std::string> text_in(std::uint64_t object, const Member& member,
                                              std::size_t limit) const {
        return kernel_->read_string(TRY(address(object, member)), limit);
    }
    [[nodiscard]] Result<std::string> text_at(std::uint64_t object, const Member& member,
                                              std::size_t limit) const {
        return kernel_->read_string(VirtualAddress{TRY(value(object, member))}, limit);
    }

private:
    AddressSpace* kernel_;
};

}  // namespace exo::os
