#include "os-awareness/linux/saved_fpu.h"

#include <array>
#include <cstring>

#include "backends/arch/x86_64.h"

namespace exo::os {
namespace {

// Intel SDM vol. 1: 10.5.1 (FXSAVE, with 64-bit pointers), 13.4 (the XSAVE area, standard and compacted). The
// first component behind the header, if AVX is among them, is AVX in both formats.
constexpr std::size_t registers_87 = 32, registers_sse = 160, header = 512, registers_avx = 576;
constexpr std::size_t area_size = 832;
constexpr std::uint64_t component_87 = 1, component_sse = 2, component_avx = 4;
constexpr std::uint64_t compacted = std::uint64_t{1} << 63;
constexpr std::uint64_t initial_fctrl = 0x37f, initial_mxcsr = 0x1f80, all_empty = 0xffff;

struct Part {
    RegisterNumber number;
    std::size_t offset, size;
};

// clang-format off
constexpr std::array control_parts{
    Part{x86::fctrl, 0, 2}, Part{x86::fstat, 2, 2}, Part{x86::fop, 6, 2}, Part{x86::fioff, 8, 4},
    Part{x86::fiseg, 12, 2}, Part{x86::fooff, 16, 4}, Part{x86::foseg, 20, 2},
};
// clang-format on

using Area = std::array<std::byte, area_size>;

std::uint64_t number_at(const Area& area, std::size_t offset, std::size_t size) {
    std::uint64_t value = 0;
    std::memcpy(&value, area.data() + offset, size);
    return value;
}

// FXSAVE keeps of each register whether it is empty; the rest of the tag is in its value (vol. 1, 8.1.7).
unsigned tag_of(const Area& area, std::size_t place) {
    const auto mantissa = number_at(area, registers_87 + 16 * place, 8);
    const auto exponent = number_at(area, registers_87 + 16 * place + 8, 2) & 0x7fff;
    if (exponent == 0x7fff) return 2;                 // special
    if (exponent == 0) return mantissa == 0 ? 1 : 2;  // zero, or denormal
    return mantissa >> 63 != 0 ? 0 : 2;               // valid, or unnormal
}

std::uint64_t whole_tag(const Area& area) {
    const auto used = number_at(area, 4, 1);
    const auto top = static_cast<unsigned>(number_at(area, 2, 2) >> 11 & 7);
    std::uint64_t tags = 0;
    for (unsigned physical = 0; physical < 8; ++physical) {
        const bool empty = (used >> physical & 1) == 0;
        tags |= std::uint64_t{empty ? 3 : tag_of(area, (physical - top) & 7)} << (2 * physical);
    }
    return tags;
}

// A component that is in its initial state is not in the area (vol. 1, 13.6): its values are known, but have
// no place.
class Reader {
public:
    Reader(const Area& area, VirtualAddress address, std::uint64_t present, UserRegisters& out)
        : area_(area), address_(address), present_(present), out_(out) {}

    void put(const Part& part, std::uint64_t component) {
        if ((present_ & component) == 0) return out_.values.set(part.number, 0);
        out_.values.set_bytes(part.number, ConstBytes{area_}.subspan(part.offset, part.size));
        out_.places.at(part.number) = {.kind = RegisterPlace::Kind::memory,
                                       .address = address_ + part.offset,
                                       .size = static_cast<std::uint32_t>(part.size)};
    }
    [[nodiscard]] bool has(std::uint64_t component) const { return (present_ & component) != 0; }

private:
    const Area& area_;
    VirtualAddress address_;
    std::uint64_t present_;
    UserRegisters& out_;
};

std::optional<std::uint64_t> offset_of(const Btf& btf, const char* type, const char* path) {
    const auto found = field_in(btf, type, path);
    return found ? std::optional<std::uint64_t>{found->offset} : std::nullopt;
}

}  // namespace

SavedFpu::SavedFpu(AddressSpace& kernel, const Btf* btf) : kernel_(&kernel) {
    if (btf == nullptr) return;
    fpu_ = offset_of(*btf, "task_struct", "thread.fpu");
    // cb7ca40a3882 (6.16) put it behind the task_struct, where no type says that it is.
    const auto task = btf->find_composite("task_struct");
    if (!fpu_ && task && btf->find_composite("fpu")) fpu_ = btf->size_of(task->id);
    last_cpu_ = field_in(*btf, "fpu", "last_cpu").value_or(Field{});
    // 87d0e5be0fac (5.16): before, the area is in struct fpu itself.
    fpstate_ = field_in(*btf, "fpu", "fpstate").value_or(Field{});
    area_ = fpstate_ ? offset_of(*btf, "fpstate", "regs") : offset_of(*btf, "fpu", "state");
}

std::optional<VirtualAddress> SavedFpu::address_of(std::uint64_t task) const {
    return fpu_ ? std::optional{VirtualAddress{task + *fpu_}} : std::nullopt;
}

bool SavedFpu::was_last_on(std::uint64_t task, std::uint32_t cpu) const {
    const auto fpu = address_of(task);
    if (!fpu || last_cpu_.size != sizeof(std::uint32_t)) return false;
    const auto last = kernel_->read_value<std::uint32_t>(*fpu + last_cpu_.offset);
    return last && *last == cpu;
}

std::optional<VirtualAddress> SavedFpu::area_of(std::uint64_t task) const {
    const auto fpu = address_of(task);
    if (!fpu || !area_) return std::nullopt;
    if (!fpstate_) return *fpu + *area_;
    const auto state = kernel_->read_value<std::uint64_t>(*fpu + fpstate_.offset);
    if (!state || *state == 0) return std::nullopt;
    return VirtualAddress{*state + *area_};
}

void SavedFpu::read(std::uint64_t task, bool xsave, UserRegisters& out) const {
    const auto address = area_of(task);
    Area area{};
    if (!address || !kernel_->read(*address, MutableBytes{area}.first(xsave ? area_size : header))) return;
    const std::uint64_t saved = xsave ? number_at(area, header, 8) : component_87 | component_sse;
    const std::uint64_t format = xsave ? number_at(area, header + 8, 8) : 0;
    Reader reader{area, *address, saved, out};

    for (const Part& part : control_parts) reader.put(part, component_87);
    if (!reader.has(component_87)) out.values.set(x86::fctrl, initial_fctrl);
    out.values.set(x86::ftag, reader.has(component_87) ? whole_tag(area) : all_empty);
    for (RegisterNumber i = 0; i < 8; ++i)
        reader.put({static_cast<RegisterNumber>(x86::st0 + i), registers_87 + 16 * std::size_t{i}, 10},
                   component_87);
    // XSAVE writes MXCSR with either of the two.
    reader.put({x86::mxcsr, 24, 4}, component_sse | component_avx);
    if (!reader.has(component_sse | component_avx)) out.values.set(x86::mxcsr, initial_mxcsr);
    const bool avx =
        xsave && ((format & compacted) == 0 || (format & component_avx) != 0 || !reader.has(component_avx));
    for (RegisterNumber i = 0; i < 16; ++i) {
        reader.put({static_cast<RegisterNumber>(x86::xmm0 + i), registers_sse + 16 * std::size_t{i}, 16},
                   component_sse);
        if (avx)
            reader.put({static_cast<RegisterNumber>(x86::ymm0h + i), registers_avx + 16 * std::size_t{i}, 16},
                       component_avx);
    }
}

}  // namespace exo::os
