#include "backends/qemu/registers.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string>

#include "backends/arch/x86_64.h"
#include "rsp/hex.h"

namespace exo::qemu {
namespace {

constexpr std::uint32_t max_g_size = 65536;

struct MonitorName {
    std::string_view name;
    RegisterNumber number;
};

// clang-format off
constexpr auto general_names = std::to_array<MonitorName>({
    {"RAX", x86::rax}, {"RBX", x86::rbx}, {"RCX", x86::rcx}, {"RDX", x86::rdx}, {"RSI", x86::rsi}, {"RDI", x86::rdi},
    {"RBP", x86::rbp}, {"RSP", x86::rsp}, {"R8", x86::r8}, {"R9", x86::r9}, {"R10", x86::r10}, {"R11", x86::r11},
    {"R12", x86::r12}, {"R13", x86::r13}, {"R14", x86::r14}, {"R15", x86::r15}, {"RIP", x86::rip}, {"RFL", x86::eflags},
    // outside 64-bit mode
    {"EAX", x86::rax}, {"EBX", x86::rbx}, {"ECX", x86::rcx}, {"EDX", x86::rdx}, {"ESI", x86::rsi}, {"EDI", x86::rdi},
    {"EBP", x86::rbp}, {"ESP", x86::rsp}, {"EIP", x86::rip}, {"EFL", x86::eflags},
    {"CR0", x86::cr0}, {"CR2", x86::cr2}, {"CR3", x86::cr3}, {"CR4", x86::cr4}, {"EFER", x86::efer},
    {"FCW", x86::fctrl}, {"MXCSR", x86::mxcsr},
});
// clang-format on

// "NAME=SELECTOR BASE LIMIT FLAGS"
struct SegmentName {
    std::string_view name;
    RegisterNumber selector;
    RegisterNumber base;  // register_count: our layout has none
};
constexpr auto segment_names = std::to_array<SegmentName>({
    {"ES", x86::es, x86::es_base},
    {"CS", x86::cs, x86::cs_base},
    {"SS", x86::ss, x86::ss_base},
    {"DS", x86::ds, x86::ds_base},
    {"FS", x86::fs, x86::fs_base},
    {"GS", x86::gs, x86::gs_base},
    {"TR", x86::tr_selector, x86::tr_base},
    {"LDT", x86::ldt_selector, x86::register_count},
});

// "NAME=     BASE LIMIT"
constexpr auto table_names = std::to_array<MonitorName>({{"GDT", x86::gdt_base}, {"IDT", x86::idt_base}});

// The text as words; "R8 =00" and "GDT=     00" are written with blanks on either side of the '='.
class Words {
public:
    explicit Words(std::string_view text) : text_(text) {}

    // The name before the next '=', nothing at the end.
    std::optional<std::string_view> name() {
        const auto equals = text_.find('=');
        if (equals == std::string_view::npos) return std::nullopt;
        auto before = text_.substr(0, equals);
        text_.remove_prefix(equals + 1);
        while (before.ends_with(' ')) before.remove_suffix(1);
        const auto start = before.find_last_of(" \n[");
        return start == std::string_view::npos ? before : before.substr(start + 1);
    }

    // The next word if it is a number of at most 16 digits.
    std::optional<std::uint64_t> value() {
        const auto start = text_.find_first_not_of(' ');
        if (start == std::string_view::npos) return std::nullopt;
        const auto word = text_.substr(start, text_.find_first_of(" \n", start) - start);
        std::uint64_t number = 0;
        const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number, 16);
        if (word.empty() || error != std::errc{} || end != word.data() + word.size()) return std::nullopt;
        text_.remove_prefix(start + word.size());
        return number;
    }

private:
    std::string_view text_;
};

class Filler {
public:
    Filler(RegisterSet& registers, Take take) : registers_(registers), take_(take) {}

    void one(std::string_view name, Words& words) {
        if (const auto* row = lookup(general_names, name)) return set(row->number, words.value());
        if (const auto* row = lookup(table_names, name)) return set(row->number, words.value());
        if (const auto* row = lookup(segment_names, name)) {
            set(row->selector, words.value());
            if (row->base != x86::register_count) set(row->base, words.value());
            return;
        }
        if (name.size() == 5 && name.substr(1, 2) == "MM") vector(name, words);
    }

private:
    template <class Table>
    static const typename Table::value_type* lookup(const Table& table, std::string_view name) {
        const auto row =
            std::find_if(table.begin(), table.end(), [&](const auto& r) { return r.name == name; });
        return row == table.end() ? nullptr : &*row;
    }

    void set(RegisterNumber number, std::optional<std::uint64_t> value) {
        if (value && wanted(number)) registers_.set(number, *value);
    }

    [[nodiscard]] bool wanted(RegisterNumber number) const {
        return take_ == Take::all || !registers_.available(number);
    }

    // "XMM00=HIGH LOW", "YMM00=" four words, "ZMM00=" eight, the highest first.
    void vector(std::string_view name, Words& words) {
        unsigned index = 0;
        const auto digits = name.substr(3);
        if (std::from_chars(digits.data(), digits.data() + digits.size(), index).ec != std::errc{} ||
            index > 15)
            return;
        const std::size_t count = name[0] == 'X' ? 2 : name[0] == 'Y' ? 4 : name[0] == 'Z' ? 8 : 0;
        std::array<std::uint64_t, 8> parts{};  // the lowest first
        for (std::size_t i = count; i-- > 0;) {
            const auto part = words.value();
            if (!part) return;
            parts[i] = *part;
        }
        const auto bytes = std::as_bytes(std::span{parts});
        if (count >= 2) set_bytes(static_cast<RegisterNumber>(x86::xmm0 + index), bytes.subspan(0, 16));
        if (count >= 4) set_bytes(static_cast<RegisterNumber>(x86::ymm0h + index), bytes.subspan(16, 16));
    }

    void set_bytes(RegisterNumber number, ConstBytes bytes) {
        if (wanted(number)) registers_.set_bytes(number, bytes);
    }

    RegisterSet& registers_;
    Take take_;
};

}  // namespace

RegisterMap::RegisterMap(const RegisterLayout& ours, std::span<const rsp::DescribedRegister> theirs) {
    std::uint32_t offset = 0;
    for (const auto& described : theirs) {
        const std::uint32_t size = (described.bits + 7) / 8;
        if (const auto number = ours.find(described.name))
            entries_.push_back({*number, described.number, offset, size});
        offset += size;
        if (offset > max_g_size) break;
    }
}

const RegisterMap::Entry* RegisterMap::find(RegisterNumber ours) const {
    const auto entry =
        std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.ours == ours; });
    return entry == entries_.end() ? nullptr : &*entry;
}

Result<void> RegisterMap::fill(RegisterSet& registers, std::string_view g) const {
    for (const auto& entry : entries_) {
        if ((entry.offset + entry.size) * std::size_t{2} > g.size()) continue;
        const auto digits = g.substr(entry.offset * std::size_t{2}, entry.size * std::size_t{2});
        if (digits.find_first_not_of('x') == std::string_view::npos) continue;
        const auto bytes = rsp::from_hex(digits);
        if (!bytes) return fail(Errc::bad_data, "QEMU's stub sends registers that are not hex");
        registers.set_bytes(entry.ours, *bytes);
    }
    return {};
}

std::optional<std::uint32_t> RegisterMap::stub_number(RegisterNumber ours) const {
    const auto* entry = find(ours);
    if (entry == nullptr) return std::nullopt;
    return entry->theirs;
}

std::uint32_t RegisterMap::stub_size(RegisterNumber ours) const {
    const auto* entry = find(ours);
    return entry == nullptr ? 0 : entry->size;
}

std::optional<std::string_view> monitor_section(std::string_view text, std::uint32_t index) {
    const auto mark = "CPU#" + std::to_string(index) + "\n";
    auto at = text.find(mark);
    while (at != std::string_view::npos && at > 0 && text[at - 1] != '\n') at = text.find(mark, at + 1);
    if (at == std::string_view::npos) return std::nullopt;
    const auto body = text.substr(at + mark.size());
    return body.substr(0, body.find("\nCPU#"));
}

void fill_from_monitor(RegisterSet& registers, std::string_view section, Take take) {
    Words words{section};
    Filler filler{registers, take};
    while (const auto name = words.name()) filler.one(*name, words);
}

// "CS =SELECTOR BASE LIMIT FLAGS": the upper half of its descriptor. L is heeded in long mode alone (Intel
// SDM vol. 3A, 5.2.1).
VcpuState state_from_monitor(std::string_view section) {
    constexpr std::uint64_t l_bit = 1U << 21U, d_bit = 1U << 22U;
    VcpuState state;
    bool long_mode = false;
    std::optional<std::uint64_t> code;
    Words words{section};
    while (const auto name = words.name()) {
        if (*name == "CS") {
            for (int skipped = 0; skipped < 3; ++skipped) words.value();
            code = words.value();
        } else if (*name == "HLT" || *name == "SMM") {
            const auto value = words.value();
            if (value) (*name == "HLT" ? state.halted : state.smm) = *value != 0;
        } else if (*name == "EFER") {
            long_mode = (words.value().value_or(0) & x86::efer_lma) != 0;
        }
    }
    if (code) {
        const bool bits64 = long_mode && (*code & l_bit) != 0;
        state.code_bits = static_cast<std::uint8_t>(bits64 ? 64 : (*code & d_bit) != 0 ? 32 : 16);
    }
    return state;
}

}  // namespace exo::qemu
