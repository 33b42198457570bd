#include "os-awareness/linux/kallsyms.h"

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

namespace exo::os {
namespace {

constexpr std::string_view banner_text = "Linux version ";

constexpr std::size_t align_up(std::size_t value, std::size_t to) { return (value + to - 1) / to * to; }

// One place and reading of the address table that may be the right one.
struct Hypothesis {
    AddressEncoding encoding{};
    bool addresses_first = false;
    std::size_t table = 0;   // offset in the image
    std::uint64_t base = 0;  // relative_base, where the encoding has one
};

constexpr std::size_t entry_bytes(AddressEncoding encoding) {
    return encoding == AddressEncoding::absolute ? 8 : 4;
}
constexpr bool has_base(AddressEncoding encoding) {
    return encoding == AddressEncoding::base_relative || encoding == AddressEncoding::absolute_percpu;
}

constexpr auto encodings = std::to_array({AddressEncoding::place_relative, AddressEncoding::base_relative,
                                          AddressEncoding::absolute_percpu, AddressEncoding::absolute});

std::uint64_t address_of(ConstBytes image, VirtualAddress start, const Hypothesis& how, std::size_t i) {
    const std::size_t at = how.table + i * entry_bytes(how.encoding);
    if (how.encoding == AddressEncoding::absolute) return value_at<std::uint64_t>(image, at);
    const auto offset = value_at<std::int32_t>(image, at);
    const auto extended = static_cast<std::uint64_t>(std::int64_t{offset});
    switch (how.encoding) {
        case AddressEncoding::base_relative: return how.base + static_cast<std::uint32_t>(offset);
        case AddressEncoding::absolute_percpu: return offset >= 0 ? extended : how.base - 1 - extended;
        case AddressEncoding::place_relative: return raw(start) + at + extended;
        case AddressEncoding::absolute: break;
    }
    return 0;
}

// Every place where the table may be. Tables are aligned to 8 bytes, since 7.0 to 4.
std::vector<Hypothesis> hypotheses(ConstBytes image, const TokenTable& tokens, const NameTable& names) {
    std::vector<Hypothesis> all;
    const auto add = [&](AddressEncoding encoding, bool first, std::size_t table, std::size_t base) {
        const std::size_t bytes = names.count * entry_bytes(encoding);
        if (table > image.size() || image.size() - table < bytes) return;
        if (has_base(encoding) && (base > image.size() || image.size() - base < 8)) return;
        const Hypothesis found{encoding, first, table,
                               has_base(encoding) ? value_at<std::uint64_t>(image, base) : 0};
        all.push_back(found);
    };
    for (const auto encoding : encodings) {
        const std::size_t bytes = names.count * entry_bytes(encoding);
        for (const std::size_t alignment : {std::size_t{8}, std::size_t{4}}) {
            const std::size_t table = align_up(tokens.end, alignment);
            add(encoding, false, table, align_up(table + bytes, 8));
            if ((table + bytes) % 8 != 0) add(encoding, false, table, table + bytes);
        }
        // num_syms, an unsigned long or a padded u32, stands between addresses and names.
        const std::size_t behind = has_base(encoding) ? 16 : 8;
        for (const std::size_t padding : {std::size_t{0}, std::size_t{4}}) {
            if (names.begin < behind + bytes + padding) continue;
            add(encoding, true, names.begin - behind - bytes - padding, names.begin - behind);
        }
    }
    return all;
}

bool is_sorted(ConstBytes image, VirtualAddress start, const Hypothesis& how, std::size_t count) {
    std::uint64_t previous = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint64_t address = address_of(image, start, how, i);
        if (address < previous) return false;
        previous = address;
    }
    return true;
}

// Symbols of which something is known that can be checked against the image.
struct Anchors {
    std::optional<std::size_t> banner;  // index of linux_banner
    std::optional<std::size_t> text;    // _text
    std::optional<std::size_t> stext;   // _stext

    explicit Anchors(const ExpandedNames& names) {
        for (std::size_t i = 0; i < names.names.size(); ++i) {
            const auto name = names[i];
            if (name == "linux_banner") banner = i;
            if (name == "_text") text = i;
            if (name == "_stext") stext = i;
        }
    }
};

bool reads(ConstBytes image, std::uint64_t offset, std::string_view text) {
    if (offset > image.size() || image.size() - offset < text.size()) return false;
    return std::memcmp(image.data() + offset, text.data(), text.size()) == 0;
}

// The anchors that hold, by name; none if that of the banner fails.
std::vector<std::string_view> anchors_held(ConstBytes image, VirtualAddress start, const Hypothesis& how,
                                           const Anchors& anchors) {
    std::vector<std::string_view> held;
    const auto address = [&](std::size_t i) { return address_of(image, start, how, i); };
    if (anchors.banner) {
        if (!reads(image, address(*anchors.banner) - raw(start), banner_text)) return {};
        held.push_back("linux_banner");
    }
    if (anchors.text && address(*anchors.text) == raw(start)) held.push_back("_text");
    if (anchors.stext && address(*anchors.stext) == raw(start)) held.push_back("_stext");
    return held;
}

std::string joined(std::span<const std::string_view> words) {
    std::string text;
    for (const auto word : words) text.append(text.empty() ? "" : ", ").append(word);
    return text;
}

std::optional<Kallsyms> with_addresses(ConstBytes image, VirtualAddress start, const TokenTable& tokens,
                                       const NameTable& names, const ExpandedNames& expanded) {
    const Anchors anchors{expanded};
    // The one with the most: a table read one entry too far may still have one of two names at one address
    // right.
    std::optional<Hypothesis> best;
    std::vector<std::string_view> most;
    for (const Hypothesis& how : hypotheses(image, tokens, names)) {
        auto held = anchors_held(image, start, how, anchors);
        if (held.size() <= most.size() || !is_sorted(image, start, how, names.count)) continue;
        best = how;
        most = std::move(held);
    }
    if (!best) return std::nullopt;
    Kallsyms result{{}, names, best->encoding, best->addresses_first, joined(most)};
    result.symbols.reserve(names.count, expanded.text.size());
    for (std::size_t i = 0; i < names.count; ++i) {
        result.symbols.add(VirtualAddress{address_of(image, start, *best, i)}, expanded.names[i].type,
                           expanded[i]);
    }
    result.symbols.finish();
    return result;
}

}  // namespace

std::string_view to_string(AddressEncoding encoding) {
    switch (encoding) {
        case AddressEncoding::absolute: return "absolute addresses";
        case AddressEncoding::base_relative: return "base-relative addresses";
        case AddressEncoding::absolute_percpu: return "base-relative addresses, per-CPU absolute";
        case AddressEncoding::place_relative: return "place-relative addresses";
    }
    return "unknown addresses";
}

std::string Kallsyms::description() const {
    std::string text = std::to_string(names.count) + " symbols, ";
    text += names.marker_bytes == 4 ? "u32 markers, " : "u64 markers, ";
    text += names.length == NameLength::uleb128 ? "ULEB128 lengths, " : "one-byte lengths, ";
    text.append(to_string(encoding)).append(addresses_first ? " before the names" : " after the tokens");
    return text.append(", verified by ").append(verified_by);
}

Result<Kallsyms> parse_kallsyms(ConstBytes image, VirtualAddress start) {
    const auto tables = find_token_tables(image);
    if (tables.empty()) return fail(Errc::not_found, "no kallsyms token table in the image");
    std::string why;
    for (const TokenTable& tokens : tables) {
        const std::string where = "kallsyms token table at " + hex(start + tokens.begin) + ": ";
        const auto names = find_names(image, tokens);
        if (!names) {
            why = where + "no names and markers before it";
            continue;
        }
        const auto expanded = expand_names(image, tokens, *names);
        if (!expanded) {
            why = where + expanded.error().message;
            continue;
        }
        if (auto found = with_addresses(image, start, tokens, *names, *expanded)) return std::move(*found);
        why =
            where + std::to_string(names->count) + " names, but no address table that agrees with the image";
    }
    return fail(Errc::bad_data, std::move(why));
}

}  // namespace exo::os
