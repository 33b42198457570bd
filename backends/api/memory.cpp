#include "backends/api/memory.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace exo {
namespace {

// Whether `address` + `done` has gone past 2^64, where address 0 is no continuation.
template <class Address>
bool wraps(Address address, std::uint64_t done) {
    return raw(address + done) < raw(address);
}

template <class Space, class Address, class Bytes>
Result<void> transfer_all(Bytes bytes, Address address, Space&& some, std::string_view what) {
    std::size_t done = 0;
    while (done < bytes.size()) {
        if (wraps(address, done)) return fail(Errc::bad_address, "nothing lies behind the last address");
        auto count = some(address + done, bytes.subspan(done));
        if (!count || *count == 0) {
            return fail(count ? Errc::bad_address : count.error().code,
                        std::string{"cannot "} + std::string{what} + " " + hex(address + done) +
                            (count ? "" : ": " + count.error().message));
        }
        done += *count;
    }
    return {};
}

// Walks `bytes` page by page, handing each physically contiguous piece to `piece`.
template <class Bytes, class Piece>
Result<std::size_t> by_page(AddressSpace& space, VirtualAddress address, Bytes bytes, Piece&& piece) {
    std::size_t done = 0;
    while (done < bytes.size() && !wraps(address, done)) {
        auto where = space.translate(address + done);
        if (!where) {
            if (done > 0) break;
            return fail(std::move(where).error());
        }
        const auto want = std::min<std::uint64_t>(bytes.size() - done, where->left_in_page());
        auto count = piece(*where, bytes.subspan(done, want));
        if (!count) {
            if (done > 0) break;
            return fail(std::move(count).error());
        }
        done += *count;
        if (*count < want) break;
    }
    return done;
}

}  // namespace

void PhysicalMemory::read_scattered(std::span<Fragment> fragments) {
    for (auto& fragment : fragments) fragment.read = read_some(fragment.address, fragment.out).value_or(0);
}

std::string hex(std::uint64_t value) {
    std::array<char, 16> digits{};
    auto [end, ec] = std::to_chars(digits.data(), digits.data() + digits.size(), value, 16);
    return "0x" + std::string{digits.data(), end};
}

std::string_view to_string(Errc code) {
    switch (code) {
        case Errc::bad_request: return "bad request";
        case Errc::bad_address: return "bad address";
        case Errc::no_such_thread: return "no such thread";
        case Errc::denied: return "denied";
        case Errc::no_free_slot: return "no free slot";
        case Errc::timed_out: return "timed out";
        case Errc::busy: return "busy";
        case Errc::not_found: return "not found";
        case Errc::bad_data: return "bad data";
        case Errc::unsupported: return "unsupported";
        case Errc::backend: return "backend";
        case Errc::target_gone: return "target gone";
    }
    return "unknown";
}

Result<void> PhysicalMemory::read(PhysicalAddress address, MutableBytes out) {
    return transfer_all(
        out, address, [&](PhysicalAddress a, MutableBytes b) { return read_some(a, b); },
        "read physical address");
}

Result<void> PhysicalMemory::write(PhysicalAddress address, ConstBytes in) {
    return transfer_all(
        in, address, [&](PhysicalAddress a, ConstBytes b) { return write_some(a, b); },
        "write physical address");
}

Result<std::size_t> AddressSpace::read_some(VirtualAddress address, MutableBytes out) {
    return by_page(*this, address, out,
                   [&](const Translation& t, MutableBytes b) { return physical().read_some(t.physical, b); });
}

Result<std::size_t> AddressSpace::write_some(VirtualAddress address, ConstBytes in) {
    const auto piece = [&](const Translation& where, ConstBytes bytes) -> Result<std::size_t> {
        if (where.read_only) return fail(Errc::denied, "this memory can only be read: others have it too");
        return physical().write_some(where.physical, bytes);
    };
    return by_page(*this, address, in, piece);
}

Result<void> AddressSpace::read(VirtualAddress address, MutableBytes out) {
    return transfer_all(
        out, address, [&](VirtualAddress a, MutableBytes b) { return read_some(a, b); }, "read address");
}

Result<void> AddressSpace::write(VirtualAddress address, ConstBytes in) {
    return transfer_all(
        in, address, [&](VirtualAddress a, ConstBytes b) { return write_some(a, b); }, "write address");
}

Result<std::string> AddressSpace::read_string(VirtualAddress address, std::size_t limit) {
    std::string text;
    std::array<std::byte, 256> chunk{};
    while (text.size() < limit) {
        const auto want = std::min(limit - text.size(), chunk.size());
        auto count = read_some(address + text.size(), MutableBytes{chunk}.first(want));
        if (!count || *count == 0) {
            if (text.empty() && !count) return fail(std::move(count).error());
            break;
        }
        const auto* begin = reinterpret_cast<const char*>(chunk.data());
        const auto* nul = std::find(begin, begin + *count, '\0');
        text.append(begin, nul);
        if (nul != begin + *count) break;
    }
    return text;
}

std::optional<VirtualAddress> AddressSpace::next_mapped(VirtualAddress address) {
    if (translate(address)) return address;
    return std::nullopt;
}

MappedRange mapped_range(AddressSpace& space, VirtualAddress address) {
    constexpr std::uint64_t page = 4096;
    constexpr int most_leaves = 512;
    const auto first = space.translate(address);
    if (!first) {
        const VirtualAddress start{raw(address) & ~(page - 1)};
        const auto next = space.next_mapped(start);
        // To the end of the address space; 2^64 itself has no 64-bit name, so its last page stands alone.
        const std::uint64_t end = next ? raw(*next) : ~(page - 1);
        return {start, end > raw(start) ? end - raw(start) : page, std::nullopt};
    }
    const VirtualAddress start{raw(address) & ~(first->page_size - 1)};
    MappedRange range{start, first->page_size, *first};
    for (int leaf = 1; leaf < most_leaves; ++leaf) {
        if (wraps(start, range.size)) break;
        const auto next = space.translate(start + range.size);
        if (!next || next->writable != first->writable || next->executable != first->executable ||
            next->user != first->user) {
            break;
        }
        range.size += next->left_in_page();
    }
    return range;
}

}  // namespace exo
