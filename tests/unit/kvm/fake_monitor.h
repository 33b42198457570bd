// A monitor's memory of many GiB, of which only what was written is there, and a guest with page tables in
// it.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "backends/arch/page_tables.h"
#include "backends/kvm/slots.h"

namespace exo::kvm::test {

inline constexpr std::uint64_t kib = 1ULL << 10;
inline constexpr std::uint64_t mib = 1ULL << 20;
inline constexpr std::uint64_t gib = 1ULL << 30;

// Where tests put guest memory in the monitor.
inline constexpr std::uint64_t base = 0x7f00'0000'0000;

// Where the guest's memory really is.
struct TrueSlot {
    std::uint64_t start;
    std::uint64_t size;
    std::uint64_t host;
};

class FakeMonitor final : public PhysicalMemory {
public:
    FakeMonitor(std::vector<Mapping> mappings, std::vector<TrueSlot> slots)
        : mappings_(std::move(mappings)), slots_(std::move(slots)) {}

    [[nodiscard]] const std::vector<Mapping>& mappings() const { return mappings_; }
    [[nodiscard]] const std::vector<TrueSlot>& slots() const { return slots_; }
    [[nodiscard]] std::size_t reads() const { return reads_; }

    [[nodiscard]] std::uint64_t host_of(std::uint64_t address) const {
        for (const TrueSlot& slot : slots_)
            if (slot.start <= address && address < slot.start + slot.size)
                return slot.host + (address - slot.start);
        return 0;
    }

    ReadVmm reader() {
        return [this](std::uint64_t host, MutableBytes out) -> std::size_t {
            ++reads_;
            const bool mapped = std::ranges::any_of(mappings_, [&](const Mapping& mapping) {
                return mapping.start <= host && host + out.size() <= mapping.end;
            });
            if (!mapped) return 0;
            for (std::size_t done = 0; done < out.size();) {
                const std::uint64_t at = host + done;
                const auto count = std::min<std::uint64_t>(out.size() - done, 4096 - at % 4096);
                const auto page = pages_.find(at / 4096);
                if (page == pages_.end())
                    std::ranges::fill(out.subspan(done, count), std::byte{0});
                else
                    std::memcpy(out.data() + done, page->second.data() + at % 4096, count);
                done += count;
            }
            return out.size();
        };
    }

    void put_host(std::uint64_t host, ConstBytes bytes) {
        for (std::size_t i = 0; i < bytes.size(); ++i)
            pages_[(host + i) / 4096][(host + i) % 4096] = bytes[i];
    }
    void put(std::uint64_t address, ConstBytes bytes) { put_host(host_of(address), bytes); }
    void put_entry(std::uint64_t address, std::uint64_t entry) {
        put(address, std::as_bytes(std::span{&entry, 1}));
    }

    // Into this process, where the mappings are real ones.
    void write_out() const {
        for (const auto& [number, bytes] : pages_)
            std::memcpy(reinterpret_cast<void*>(number * 4096), bytes.data(), bytes.size());
    }

    // The guest's own view.
    Result<std::size_t> read_some(PhysicalAddress address, MutableBytes out) override {
        const std::uint64_t host = host_of(raw(address));
        if (host == 0) return fail(Errc::bad_address, "a hole");
        return reader()(host, out);
    }
    Result<std::size_t> write_some(PhysicalAddress, ConstBytes) override {
        return fail(Errc::unsupported, "");
    }
    [[nodiscard]] std::span<const MemoryRegion> regions() const override { return {}; }

private:
    std::vector<Mapping> mappings_;
    std::vector<TrueSlot> slots_;
    std::map<std::uint64_t, std::array<std::byte, 4096>> pages_;
    std::size_t reads_ = 0;
};

inline Mapping memory(std::uint64_t start, std::uint64_t size, std::string path = "") {
    Mapping mapping;
    mapping.start = start;
    mapping.end = start + size;
    mapping.readable = mapping.writable = true;
    mapping.path = std::move(path);
    return mapping;
}

inline void set_checksum(std::vector<std::byte>& bytes, std::size_t at) {
    unsigned sum = 0;
    for (const std::byte byte : bytes) sum += std::to_integer<unsigned>(byte);
    bytes[at] = static_cast<std::byte>(std::to_integer<unsigned>(bytes[at]) - sum);
}

// A table of firmware: `value` at `offset`, and all bytes together sum to zero.
inline std::vector<std::byte> structure(std::string_view signature, std::size_t size, std::size_t offset,
                                        std::uint32_t value, std::size_t checksum) {
    std::vector<std::byte> bytes(size);
    std::memcpy(bytes.data(), signature.data(), signature.size());
    std::memcpy(bytes.data() + offset, &value, sizeof value);
    set_checksum(bytes, checksum);
    return bytes;
}

// A kernel with a direct map, in four levels, whose tables lie where the test wants them.
class FakeGuest {
public:
    static constexpr std::uint64_t direct_map = 0xffff'8880'0000'0000;
    static constexpr std::uint64_t text = 0xffff'ffff'8100'0000;
    static constexpr std::uint64_t user = 0x5555'5555'0000;
    static constexpr std::uint64_t small = 0xffff'c900'0000'0000;  // 4 KiB pages, as vmalloc's

    // `places`: guest addresses of 2 MiB each that tables are taken from in turn.
    FakeGuest(FakeMonitor& monitor, std::vector<std::uint64_t> places)
        : monitor_(monitor), places_(std::move(places)), used_(places_.size()) {
        root_ = table();
        for (const TrueSlot& slot : monitor.slots())
            for (std::uint64_t at = 0; at + 2 * mib <= slot.size; at += 256 * mib)
                map(direct_map + slot.start + at, slot.start + at, 21);
        for (std::uint64_t i = 0; i < 16; ++i) map(text + i * 2 * mib, 16 * mib + i * 2 * mib, 21);
        // Tables in every place: each 2 MiB of these addresses have one of their own.
        for (std::uint64_t i = 0; i < 4 * places_.size(); ++i)
            for (std::uint64_t j = 0; j < 4; ++j)
                map(small + i * 2 * mib + j * 4096, 64 * mib + (i * 7 + j * 3) * 4096, 12);
        map(user, 96 * mib, 12, true);
        map(user + 4096, 97 * mib, 12, true);
    }

    [[nodiscard]] std::uint64_t root() const { return root_; }
    [[nodiscard]] std::uint64_t table() {
        const std::size_t place = next_++ % places_.size();
        return places_[place] + 4096 * used_[place]++;
    }

    void map(std::uint64_t address, std::uint64_t physical, unsigned shift, bool is_user = false) {
        std::uint64_t at = root_;
        const std::uint64_t flags = is_user ? 7 : 3;
        for (unsigned level = 39;; level -= 9) {
            const std::uint64_t slot = at + (address >> level & 511) * 8;
            if (level == shift) {
                monitor_.put_entry(slot, physical | flags | (level > 12 ? 0x80 : 0));
                return;
            }
            std::uint64_t entry = 0;
            static_cast<void>(
                monitor_.read(PhysicalAddress{slot}, std::as_writable_bytes(std::span{&entry, 1})));
            if (entry == 0) monitor_.put_entry(slot, entry = table() | 7);
            at = entry & 0x000f'ffff'ffff'f000;
        }
    }

    // KVM's view of a vCPU in this guest. With `smap`, pages of user mode are hidden from it.
    [[nodiscard]] Witness witness(bool smap = false) const { return witness_of(root_, smap); }
    [[nodiscard]] Witness witness_of(std::uint64_t root, bool smap = false) const {
        Witness result;
        result.cr0 = x86::cr0_pe | x86::cr0_pg;
        result.cr3 = root | 0x7;  // a PCID
        result.cr4 = x86::cr4_pae;
        result.efer = x86::efer_lma;
        result.addresses = {text + 0x1234, direct_map + 0x1000, small + 0x10, user + 0x20, 0};
        result.translate = [this, root,
                            smap](VirtualAddress address) -> Result<std::optional<PhysicalAddress>> {
            x86::PageTables tables{monitor_, PhysicalAddress{root}, x86::PagingMode::levels4};
            const auto found = tables.translate(address);
            if (!found || (smap && found->user)) return std::nullopt;
            return found->physical;
        };
        return result;
    }

private:
    FakeMonitor& monitor_;
    std::vector<std::uint64_t> places_;
    std::vector<std::uint64_t> used_;
    std::size_t next_ = 0;
    std::uint64_t root_ = 0;
};

}  // namespace exo::kvm::test
