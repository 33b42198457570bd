// Kernel logs of tests: the ring buffer of 5.10 on, and log_buf of before, in one stretch of memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "os-awareness/linux/printk.h"
#include "tests/support/orc_builder.h"

namespace exo::test {

// This kernel's structures, of an order that no real one has.
struct FakeDesc {
    std::uint64_t pad, begin, next, state_var;
};
struct FakeInfo {
    std::uint32_t pad;
    std::uint16_t text_len;
    std::uint8_t facility, level_and_flags;
    std::uint32_t caller_id, pad2;
    std::uint64_t seq, ts_nsec, pad3;
};
struct FakeRing {
    std::uint64_t pad;
    struct {
        std::uint32_t size_bits, pad;
        std::uint64_t data, head_lpos, tail_lpos;
    } text;
    struct {
        std::uint64_t tail_id, head_id;
        std::uint32_t count_bits, pad;
        std::uint64_t infos, descs;
    } desc;
};

enum class FakeState : std::uint8_t { reserved, committed, finalized, reusable };

class PrintkRing {
public:
    static constexpr VirtualAddress memory{0xffff'8880'0010'0000};
    static constexpr VirtualAddress ring = memory + 0x100, descs = memory + 0x1000, infos = memory + 0x2000,
                                    data = memory + 0x4000;

    // With no record; the first to come has the id `first`.
    explicit PrintkRing(unsigned count_bits = 4, unsigned size_bits = 9, std::uint64_t first = 0x1000);

    // Writes a record as the kernel does, over the oldest ones where there is no room: its id.
    std::uint64_t add(std::string_view text, FakeState state = FakeState::finalized);
    // The next one has its block where the ring ends; with `fits`, up to the last byte.
    void go_to_end(std::uint64_t bytes_before) { head_lpos_ += end_distance(bytes_before); }

    [[nodiscard]] VirtualAddress desc(std::uint64_t id) const;
    [[nodiscard]] VirtualAddress info(std::uint64_t id) const;
    template <class T, class Change>
    void edit(VirtualAddress at, Change&& change) {
        auto value = *space.read_value<T>(at);
        change(value);
        space.put(at, value);
    }
    void set_state(std::uint64_t id, FakeState state);
    void fit_at_end() { fit_at_end_ = true; }  // as 6.18 and later do

    [[nodiscard]] std::string vmcoreinfo() const;
    [[nodiscard]] std::vector<std::byte> btf() const;
    // By VMCOREINFO, or by BTF and symbols.
    [[nodiscard]] Result<os::KernelLog> read(bool by_btf = false);

    FlatSpace space{memory, 0x1'0000};

private:
    [[nodiscard]] std::uint64_t end_distance(std::uint64_t bytes_before) const;
    void write_ring();

    unsigned count_bits_, size_bits_;
    std::uint64_t tail_id_, head_id_;
    std::uint64_t head_lpos_ = 0;
    std::uint64_t sequence_ = 0;
    bool fit_at_end_ = false;
};

// Texts of a log's records.
inline std::vector<std::string> texts(const os::KernelLog& log) {
    std::vector<std::string> all;
    for (const auto& record : log.records) all.push_back(record.text);
    return all;
}

}  // namespace exo::test
