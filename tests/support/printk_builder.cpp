#include "tests/support/printk_builder.h"

#include <cstddef>

#include "tests/support/btf_writer.h"

namespace exo::test {
namespace {

constexpr std::uint64_t id_mask = ~std::uint64_t{0} >> 2;
constexpr VirtualAddress prb = PrintkRing::memory;  // the variable

std::uint64_t state_var(std::uint64_t id, FakeState state) {
    return (id & id_mask) | static_cast<std::uint64_t>(state) << 62;
}

}  // namespace

PrintkRing::PrintkRing(unsigned count_bits, unsigned size_bits, std::uint64_t first)
    : count_bits_(count_bits), size_bits_(size_bits), tail_id_(first - 1), head_id_(first - 1) {
    space.put(prb, raw(ring));
    // As _DEFINE_PRINTKRB() has it: the first record comes after one that is reusable.
    space.put(desc(head_id_), FakeDesc{0, 1, 1, state_var(head_id_, FakeState::reusable)});
    write_ring();
}

VirtualAddress PrintkRing::desc(std::uint64_t id) const {
    return descs + (id & ((1U << count_bits_) - 1)) * sizeof(FakeDesc);
}
VirtualAddress PrintkRing::info(std::uint64_t id) const {
    return infos + (id & ((1U << count_bits_) - 1)) * sizeof(FakeInfo);
}

void PrintkRing::set_state(std::uint64_t id, FakeState state) {
    edit<FakeDesc>(desc(id), [&](FakeDesc& d) { d.state_var = state_var(id, state); });
}

std::uint64_t PrintkRing::end_distance(std::uint64_t bytes_before) const {
    const auto size = std::uint64_t{1} << size_bits_;
    return (size - bytes_before - head_lpos_) & (size - 1);
}

std::uint64_t PrintkRing::add(std::string_view text, FakeState state) {
    head_id_ = (head_id_ + 1) & id_mask;
    if (((head_id_ - tail_id_) & id_mask) >= 1U << count_bits_) tail_id_ = (tail_id_ + 1) & id_mask;
    FakeDesc d{0, 3, 3, state_var(head_id_, state)};  // no block for an empty line
    if (!text.empty()) {
        const auto size = std::uint64_t{1} << size_bits_;
        const auto bytes = (8 + text.size() + 7) / 8 * 8;
        d.begin = head_lpos_;
        d.next = head_lpos_ + bytes;
        std::uint64_t at = d.begin & (size - 1);
        const bool beyond = fit_at_end_ ? at + bytes > size : at + bytes >= size;
        if (beyond) {
            d.next = (d.begin & ~(size - 1)) + size + bytes;
            at = 0;
        }
        space.put(data + at, head_id_);
        for (std::size_t i = 0; i < text.size(); ++i) space.put(data + at + 8 + i, text[i]);
        head_lpos_ = d.next;
    }
    space.put(desc(head_id_), d);
    const auto length = static_cast<std::uint16_t>(text.size());
    const auto time = 1'000'000'000 + sequence_;
    space.put(info(head_id_), FakeInfo{0, length, 3, 6 << 5 | 2, 0x80000001, 0, sequence_++, time, 0});
    write_ring();
    return head_id_;
}

void PrintkRing::write_ring() {
    space.put(ring, FakeRing{0,
                             {size_bits_, 0, raw(data), head_lpos_, 0},
                             {tail_id_, head_id_, count_bits_, 0, raw(infos), raw(descs)}});
}

#define OFFSET(type, member) static_cast<std::uint32_t>(offsetof(type, member))

std::string PrintkRing::vmcoreinfo() const {
    std::string text = "OSRELEASE=6.1.0-test\nSYMBOL(prb)=" + hex(prb).substr(2) + "\n";
    const auto offset = [&](std::string_view name, std::size_t value) {
        text.append("OFFSET(").append(name).append(")=").append(std::to_string(value)).append("\n");
    };
    offset("printk_ringbuffer.desc_ring", offsetof(FakeRing, desc));
    offset("printk_ringbuffer.text_data_ring", offsetof(FakeRing, text));
    offset("prb_desc_ring.count_bits", offsetof(FakeRing, desc.count_bits) - offsetof(FakeRing, desc));
    offset("prb_desc_ring.descs", offsetof(FakeRing, desc.descs) - offsetof(FakeRing, desc));
    offset("prb_desc_ring.infos", offsetof(FakeRing, desc.infos) - offsetof(FakeRing, desc));
    offset("prb_desc_ring.head_id", offsetof(FakeRing, desc.head_id) - offsetof(FakeRing, desc));
    offset("prb_desc_ring.tail_id", offsetof(FakeRing, desc.tail_id) - offsetof(FakeRing, desc));
    offset("prb_data_ring.size_bits", 0);
    offset("prb_data_ring.data", offsetof(FakeRing, text.data) - offsetof(FakeRing, text));
    offset("prb_desc.state_var", offsetof(FakeDesc, state_var));
    offset("prb_desc.text_blk_lpos", offsetof(FakeDesc, begin));
    offset("prb_data_blk_lpos.begin", 0);
    offset("prb_data_blk_lpos.next", 8);
    offset("printk_info.seq", offsetof(FakeInfo, seq));
    offset("printk_info.ts_nsec", offsetof(FakeInfo, ts_nsec));
    offset("printk_info.text_len", offsetof(FakeInfo, text_len));
    offset("printk_info.caller_id", offsetof(FakeInfo, caller_id));
    text += "SIZE(prb_desc)=" + std::to_string(sizeof(FakeDesc)) + "\n";
    text += "SIZE(printk_info)=" + std::to_string(sizeof(FakeInfo)) + "\n";
    return text;
}

std::vector<std::byte> PrintkRing::btf() const {
    BtfWriter w;
    const auto u8 = w.integer("unsigned char", 1);
    const auto u16 = w.integer("unsigned short", 2);
    const auto u32 = w.integer("unsigned int", 4);
    const auto u64 = w.integer("unsigned long", 8);
    const auto positions = w.structure("prb_data_blk_lpos", 16, {{"begin", u64, 0}, {"next", u64, 8}});
    w.structure("prb_desc", sizeof(FakeDesc),
                {{"text_blk_lpos", positions, OFFSET(FakeDesc, begin)},
                 {"state_var", u64, OFFSET(FakeDesc, state_var)}});
    w.bitfields("printk_info", sizeof(FakeInfo),
                {{"text_len", u16, OFFSET(FakeInfo, text_len)},
                 {"facility", u8, OFFSET(FakeInfo, facility)},
                 {"flags", u8, OFFSET(FakeInfo, level_and_flags), 0, 5},
                 {"level", u8, OFFSET(FakeInfo, level_and_flags), 5, 3},
                 {"caller_id", u32, OFFSET(FakeInfo, caller_id)},
                 {"seq", u64, OFFSET(FakeInfo, seq)},
                 {"ts_nsec", u64, OFFSET(FakeInfo, ts_nsec)}});
    const auto data_ring = w.structure("prb_data_ring", 32, {{"size_bits", u32, 0}, {"data", u64, 8}});
    const auto desc_ring = w.structure("prb_desc_ring", 40,
                                       {{"tail_id", u64, 0},
                                        {"head_id", u64, 8},
                                        {"count_bits", u32, 16},
                                        {"infos", u64, 24},
                                        {"descs", u64, 32}});
    w.structure("printk_ringbuffer", sizeof(FakeRing),
                {{"text_data_ring", data_ring, OFFSET(FakeRing, text)},
                 {"desc_ring", desc_ring, OFFSET(FakeRing, desc)}});
    return w.blob();
}

#undef OFFSET

Result<os::KernelLog> PrintkRing::read(bool by_btf) {
    os::SymbolTable symbols;
    if (by_btf) symbols.add(prb, 'd', "prb");
    symbols.finish();
    const auto types = os::Btf::parse(btf());
    const auto info = os::VmCoreInfo::parse(vmcoreinfo());
    return os::read_kernel_log({space, symbols, by_btf ? &*types : nullptr, by_btf ? nullptr : &*info});
}

}  // namespace exo::test
