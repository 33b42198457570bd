// Writes BTF blobs for tests, right ones and wrong ones.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "os-awareness/linux/btf.h"

namespace exo::test {

class BtfWriter {
public:
    struct Member {
        std::string_view name;  // empty: anonymous
        os::BtfId type = 0;
        std::uint32_t offset = 0;         // bytes
        std::uint32_t bit = 0;            // added to 8 * offset
        std::uint32_t bitfield_size = 0;  // for structures written with bitfields()
    };
    struct Enumerator {
        std::string_view name;
        std::int64_t value = 0;
    };
    struct Variable {
        os::BtfId variable = 0;
        std::uint32_t offset = 0;
        std::uint32_t size = 0;
    };

    BtfWriter() = default;
    // Split BTF: ids and strings go on where those of another end.
    BtfWriter(os::BtfId first_id, std::size_t string_base)
        : strings_(), string_base_(string_base), next_(first_id) {}

    // Each returns the id of the record that it appends.
    os::BtfId integer(std::string_view name, std::uint32_t size, bool is_signed = false);
    os::BtfId pointer(os::BtfId to);
    os::BtfId array(os::BtfId element, std::uint32_t count);
    os::BtfId structure(std::string_view name, std::uint32_t size, const std::vector<Member>& members);
    os::BtfId union_(std::string_view name, std::uint32_t size, const std::vector<Member>& members);
    // A structure with kind_flag set: its members have bitfield sizes.
    os::BtfId bitfields(std::string_view name, std::uint32_t size, const std::vector<Member>& members);
    os::BtfId enum32(std::string_view name, bool is_signed, const std::vector<Enumerator>& values);
    os::BtfId enum64(std::string_view name, bool is_signed, const std::vector<Enumerator>& values);
    os::BtfId variable(std::string_view name, os::BtfId type);
    os::BtfId data_section(std::string_view name, const std::vector<Variable>& variables);
    // Typedefs, qualifiers, functions: kinds without a tail.
    os::BtfId reference(os::BtfKind kind, std::string_view name, os::BtfId to);
    // Anything: `info` and the words of the tail as they stand.
    os::BtfId raw(std::string_view name, std::uint32_t info, std::uint32_t size_or_type,
                  const std::vector<std::uint32_t>& tail = {});

    // A string for the words of raw(): its offset.
    std::uint32_t text(std::string_view value) { return string(value); }
    [[nodiscard]] os::BtfId next_id() const { return next_; }
    [[nodiscard]] std::size_t string_bytes() const { return string_base_ + strings_.size(); }
    [[nodiscard]] std::vector<std::byte> blob() const;

private:
    std::uint32_t string(std::string_view text);
    os::BtfId composite(std::uint32_t info, std::string_view name, std::uint32_t size,
                        const std::vector<Member>& members);

    std::vector<std::uint32_t> types_;
    std::string strings_ = std::string(1, '\0');
    std::size_t string_base_ = 0;
    os::BtfId next_ = 1;
};

}  // namespace exo::test
