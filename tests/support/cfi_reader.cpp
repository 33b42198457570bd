#include "tests/support/cfi_reader.h"

#include <algorithm>
#include <cstring>

namespace exo::test {
namespace {

using os::cfi::Bytes;
using os::cfi::Register;

// Bytes taken off the front; `bad` once they ran out.
class CfiCursor {
public:
    explicit CfiCursor(ConstBytes bytes) : bytes_(bytes) {}

    [[nodiscard]] bool empty() const { return bytes_.empty(); }
    [[nodiscard]] bool bad() const { return bad_; }

    template <class T>
    T number() {
        T value{};
        const auto from = take(sizeof value);
        if (from.size() == sizeof value) std::memcpy(&value, from.data(), sizeof value);
        return value;
    }
    std::uint64_t leb(bool is_signed = false) {
        std::uint64_t value = 0;
        unsigned shift = 0;
        std::uint8_t byte = 0x80;
        for (; (byte & 0x80) != 0 && shift < 64 && !bad_; shift += 7) {
            byte = number<std::uint8_t>();
            value |= std::uint64_t{byte & 0x7fU} << shift;
        }
        if (is_signed && shift < 64 && (byte & 0x40) != 0) value |= ~std::uint64_t{0} << shift;
        return value;
    }
    Register reg() { return static_cast<Register>(leb()); }
    Bytes block() { return bytes(leb()); }
    Bytes bytes(std::uint64_t size) {
        const auto taken = take(size);
        return {taken.begin(), taken.end()};
    }
    void skip(std::uint64_t size) { take(size); }

private:
    ConstBytes take(std::uint64_t size) {
        if (size > bytes_.size()) {
            bad_ = true;
            bytes_ = {};
            return {};
        }
        const auto taken = bytes_.first(size);
        bytes_ = bytes_.subspan(size);
        return taken;
    }

    ConstBytes bytes_;
    bool bad_ = false;
};

struct CfiRule {
    enum class How : std::uint8_t { same, undefined, at_offset, at_expression, is_expression };
    How how = How::same;
    std::int64_t offset = 0;
    Bytes expression;
};

struct CfiRow {
    Register base = Register::rsp;
    std::int64_t offset = 0;
    Bytes expression;  // of the CFA, if not empty
    std::map<Register, CfiRule> rules;
};

std::optional<std::uint64_t> evaluate(const Bytes& code, std::vector<std::uint64_t> stack,
                                      const CfiFrame& frame, const CfiReader::Memory& memory) {
    CfiCursor at{code};
    const auto pop = [&]() -> std::uint64_t {
        if (stack.empty()) return 0;
        const auto value = stack.back();
        stack.pop_back();
        return value;
    };
    while (!at.empty()) {
        const auto op = at.number<std::uint8_t>();
        if (op == 0x03)
            stack.push_back(at.number<std::uint64_t>());
        else if (op == 0x06) {
            const auto value = memory(pop());
            if (!value) return std::nullopt;
            stack.push_back(*value);
        } else if (op == 0x11)
            stack.push_back(at.leb(true));
        else if (op == 0x12)
            stack.push_back(stack.empty() ? 0 : stack.back());
        else if (op == 0x1a)
            stack.push_back(pop() & pop());
        else if (op == 0x22)
            stack.push_back(pop() + pop());
        else if (op == 0x23)
            stack.push_back(pop() + at.leb());
        else if (op == 0x2b) {
            const auto top = static_cast<std::int64_t>(pop());
            stack.push_back(static_cast<std::int64_t>(pop()) > top ? 1 : 0);
        } else if (op == 0x28 || op == 0x2f) {
            const auto distance = at.number<std::uint16_t>();
            if (op == 0x2f || pop() != 0) at.skip(distance);
        } else if (op >= 0x30 && op < 0x50)
            stack.push_back(op - 0x30U);
        else if (op >= 0x70 && op < 0x80) {
            const auto value = frame.get(static_cast<Register>(op - 0x70));
            if (!value) return std::nullopt;
            stack.push_back(*value + at.leb(true));
        } else
            return std::nullopt;
        if (at.bad()) return std::nullopt;
    }
    return stack.empty() ? std::nullopt : std::optional{stack.back()};
}

// One instruction; what it adds to the location, or nothing if it is not known.
std::optional<std::uint64_t> execute(CfiCursor& at, CfiRow& row) {
    using How = CfiRule::How;
    const auto code = at.number<std::uint8_t>();
    const auto low = code & 0x3fU;
    if (code >> 6 == 1) return low;
    if (code >> 6 == 2) {
        row.rules[static_cast<Register>(low)] = {
            How::at_offset, -8 * static_cast<std::int64_t>(at.leb()), {}};
        return 0;
    }
    switch (code) {
        case 0x00: return 0;
        case 0x02: return at.number<std::uint8_t>();
        case 0x03: return at.number<std::uint16_t>();
        case 0x04: return at.number<std::uint32_t>();
        case 0x05:
        case 0x11: {
            const auto reg = at.reg();
            row.rules[reg] = {How::at_offset, -8 * static_cast<std::int64_t>(at.leb(code == 0x11)), {}};
            return 0;
        }
        case 0x07: row.rules[at.reg()] = {How::undefined, 0, {}}; return 0;
        case 0x08: row.rules[at.reg()] = {How::same, 0, {}}; return 0;
        case 0x0c: row.base = at.reg(); [[fallthrough]];
        case 0x0e:
            // As gdb's: an offset for a CFA that is an expression means nothing.
            if (code == 0x0e && !row.expression.empty()) return std::nullopt;
            row.offset = static_cast<std::int64_t>(at.leb());
            row.expression.clear();
            return 0;
        case 0x0f: row.expression = at.block(); return 0;
        case 0x10:
        case 0x16: {
            const auto reg = at.reg();
            row.rules[reg] = {code == 0x10 ? How::at_expression : How::is_expression, 0, at.block()};
            return 0;
        }
        default: return std::nullopt;
    }
}

// False if something in it is not known. Stops at the first location above `pc`.
bool run(const Bytes& instructions, std::uint64_t location, std::uint64_t pc, CfiRow& row) {
    CfiCursor at{instructions};
    while (!at.empty()) {
        const auto advance = execute(at, row);
        if (!advance || at.bad()) return false;
        location += *advance;
        if (*advance != 0 && location > pc) return true;
    }
    return true;
}

std::optional<std::uint64_t> apply(const CfiRule& rule, Register reg, const CfiFrame& frame,
                                   const CfiReader::Memory& memory) {
    using How = CfiRule::How;
    if (rule.how == How::undefined) return std::nullopt;
    if (rule.how == How::same) return frame.get(reg);
    if (rule.how == How::at_offset) return memory(frame.cfa + static_cast<std::uint64_t>(rule.offset));
    const auto value = evaluate(rule.expression, {frame.cfa}, frame, memory);
    return rule.how == How::is_expression || !value ? value : memory(*value);
}

}  // namespace

std::optional<CfiReader> CfiReader::parse(const Bytes& section) {
    CfiReader reader;
    CfiCursor at{section};
    for (std::uint32_t offset = 0; !at.empty();) {
        const auto length = at.number<std::uint32_t>();
        CfiCursor entry{Bytes{}};
        const auto content = at.bytes(length);
        entry = CfiCursor{content};
        const auto id = entry.number<std::uint32_t>();
        if (length % 8 != 4) return std::nullopt;
        if (id == 0xffff'ffff) {
            Cie cie{offset, false, {}};
            const auto version = entry.number<std::uint8_t>();
            auto augmentation = entry.number<std::uint8_t>();
            if (augmentation == 'S') {
                cie.signal = true;
                augmentation = entry.number<std::uint8_t>();
            }
            if (version != 1 || augmentation != 0 || entry.leb() != 1 || entry.leb(true) != ~7ULL ||
                entry.number<std::uint8_t>() != 16 || entry.bad()) {
                return std::nullopt;
            }
            cie.instructions = content;
            cie.instructions.erase(cie.instructions.begin(),
                                   cie.instructions.begin() + (cie.signal ? 10 : 9));
            reader.cies_.push_back(std::move(cie));
        } else {
            const auto cie = std::ranges::find(reader.cies_, id, &Cie::offset);
            Fde fde{entry.number<std::uint64_t>(), entry.number<std::uint64_t>(), 0, {}};
            if (entry.bad() || cie == reader.cies_.end()) return std::nullopt;
            fde.cie = static_cast<std::size_t>(cie - reader.cies_.begin());
            fde.instructions = content;
            fde.instructions.erase(fde.instructions.begin(), fde.instructions.begin() + 20);
            reader.fdes_.push_back(std::move(fde));
        }
        if (at.bad()) return std::nullopt;
        offset += length + 4;
    }
    return reader;
}

const CfiReader::Fde* CfiReader::find(std::uint64_t pc) const {
    const auto it = std::ranges::find_if(fdes_, [&](const Fde& f) { return pc - f.start < f.size; });
    return it == fdes_.end() ? nullptr : &*it;
}

bool CfiReader::well_formed() const {
    return std::ranges::all_of(fdes_, [&](const Fde& fde) {
        CfiRow row;
        return run(cies_[fde.cie].instructions, 0, ~0ULL, row) && run(fde.instructions, 0, ~0ULL, row);
    });
}

CfiReader::Outcome CfiReader::step(CfiFrame& frame, const Memory& memory, CfiFrame& caller) const {
    // First as an ordinary frame; one whose FDE turns out to be of a signal frame is looked up anew.
    auto pc = frame.called ? frame.pc() - 1 : frame.pc();
    const auto* fde = find(pc);
    frame.signal = fde && cies_[fde->cie].signal;
    if (frame.signal) fde = find(pc = frame.pc());
    if (!fde) return Outcome::no_fde;

    CfiRow row;
    if (!run(cies_[fde->cie].instructions, 0, ~0ULL, row) || !run(fde->instructions, fde->start, pc, row)) {
        return Outcome::unreadable;
    }
    const auto base = frame.get(row.base);
    const auto cfa = row.expression.empty() ? base : evaluate(row.expression, {}, frame, memory);
    if (!cfa) return Outcome::unreadable;
    frame.cfa = row.expression.empty() ? *cfa + static_cast<std::uint64_t>(row.offset) : *cfa;
    if (row.rules[Register::return_address].how == CfiRule::How::undefined) return Outcome::outermost;

    caller = {};
    caller.called = !frame.signal;
    for (const auto& [reg, value] : frame.registers) row.rules.try_emplace(reg);
    for (const auto& [reg, rule] : row.rules) {
        if (const auto value = apply(rule, reg, frame, memory)) caller.registers[reg] = *value;
    }
    // The psABI's default, which gdb knows: amd64_init_reg.
    if (row.rules[Register::rsp].how == CfiRule::How::same) caller.registers[Register::rsp] = frame.cfa;
    return caller.get(Register::return_address) ? Outcome::caller : Outcome::unreadable;
}

}  // namespace exo::test
