#include "tests/support/btf_writer.h"

#include <algorithm>
#include <cstring>

namespace exo::test {
namespace {

std::uint32_t info(os::BtfKind kind, std::size_t count = 0, bool flag = false) {
    return static_cast<std::uint32_t>(kind) << 24 | static_cast<std::uint32_t>(count) |
           (flag ? 1U << 31 : 0U);
}

}  // namespace

std::uint32_t BtfWriter::string(std::string_view text) {
    if (text.empty()) return 0;
    const auto offset = string_bytes();
    strings_.append(text).push_back('\0');
    return static_cast<std::uint32_t>(offset);
}

os::BtfId BtfWriter::raw(std::string_view name, std::uint32_t info_word, std::uint32_t size_or_type,
                         const std::vector<std::uint32_t>& tail) {
    types_.push_back(string(name));
    types_.push_back(info_word);
    types_.push_back(size_or_type);
    types_.insert(types_.end(), tail.begin(), tail.end());
    return next_++;
}

os::BtfId BtfWriter::integer(std::string_view name, std::uint32_t size, bool is_signed) {
    return raw(name, info(os::BtfKind::integer), size, {(is_signed ? 1U << 24 : 0U) | size * 8});
}

os::BtfId BtfWriter::pointer(os::BtfId to) { return raw("", info(os::BtfKind::pointer), to); }

os::BtfId BtfWriter::array(os::BtfId element, std::uint32_t count) {
    return raw("", info(os::BtfKind::array), 0, {element, element, count});
}

os::BtfId BtfWriter::composite(std::uint32_t info_word, std::string_view name, std::uint32_t size,
                               const std::vector<Member>& members) {
    std::vector<std::uint32_t> tail;
    for (const auto& m : members) {
        tail.insert(tail.end(), {string(m.name), m.type, (m.offset * 8 + m.bit) | m.bitfield_size << 24});
    }
    return raw(name, info_word, size, tail);
}

os::BtfId BtfWriter::structure(std::string_view name, std::uint32_t size,
                               const std::vector<Member>& members) {
    return composite(info(os::BtfKind::structure, members.size()), name, size, members);
}

os::BtfId BtfWriter::union_(std::string_view name, std::uint32_t size, const std::vector<Member>& members) {
    return composite(info(os::BtfKind::union_, members.size()), name, size, members);
}

os::BtfId BtfWriter::bitfields(std::string_view name, std::uint32_t size,
                               const std::vector<Member>& members) {
    return composite(info(os::BtfKind::structure, members.size(), true), name, size, members);
}

os::BtfId BtfWriter::enum32(std::string_view name, bool is_signed, const std::vector<Enumerator>& values) {
    std::vector<std::uint32_t> tail;
    for (const auto& v : values)
        tail.insert(tail.end(), {string(v.name), static_cast<std::uint32_t>(v.value)});
    return raw(name, info(os::BtfKind::enum32, values.size(), is_signed), 4, tail);
}

os::BtfId BtfWriter::enum64(std::string_view name, bool is_signed, const std::vector<Enumerator>& values) {
    std::vector<std::uint32_t> tail;
    for (const auto& v : values) {
        const auto value = static_cast<std::uint64_t>(v.value);
        tail.insert(tail.end(), {string(v.name), static_cast<std::uint32_t>(value),
                                 static_cast<std::uint32_t>(value >> 32)});
    }
    return raw(name, info(os::BtfKind::enum64, values.size(), is_signed), 8, tail);
}

os::BtfId BtfWriter::variable(std::string_view name, os::BtfId type) {
    return raw(name, info(os::BtfKind::variable), type, {1});
}

os::BtfId BtfWriter::data_section(std::string_view name, const std::vector<Variable>& variables) {
    std::vector<std::uint32_t> tail;
    for (const auto& v : variables) tail.insert(tail.end(), {v.variable, v.offset, v.size});
    return raw(name, info(os::BtfKind::data_section, variables.size()), 0, tail);
}

os::BtfId BtfWriter::reference(os::BtfKind kind, std::string_view name, os::BtfId to) {
    return raw(name, info(kind), to);
}

std::vector<std::byte> BtfWriter::blob() const {
    const auto types_size = static_cast<std::uint32_t>(types_.size() * 4);
    const std::uint32_t header[] = {0x0001eb9f, 24,         0,
                                    types_size, types_size, static_cast<std::uint32_t>(strings_.size())};
    std::vector<std::byte> out(sizeof header + types_size + strings_.size());
    std::memcpy(out.data(), header, sizeof header);
    std::memcpy(out.data() + sizeof header, types_.data(), types_size);
    std::memcpy(out.data() + sizeof header + types_size, strings_.data(), strings_.size());
    return out;
}

}  // namespace exo::test
