#include "backends/kvm/memory.h"

#include <algorithm>

namespace exo::kvm {
namespace {

constexpr std::size_t kept_regions = 16;

const Mapping* mapping_at(std::span<const Mapping> mappings, std::uint64_t host) {
    for (const Mapping& mapping : mappings)
        if (mapping.start <= host && host < mapping.end) return &mapping;
    return nullptr;
}

// The monitor's memory by its own addresses: what lies in a file from there, so that a search over memory
// that was never touched allocates none.
class MonitorMemory {
public:
    MonitorMemory(const VmmMemory& vmm, std::span<const Mapping> mappings) : vmm_(vmm) {
        for (const Mapping& mapping : mappings)
            if (mapping.shared && mapping.writable && mapping.inode != 0)
                shared_.push_back({mapping.start, mapping.end - mapping.start, nullptr, 0});
        std::vector<HostRange*> ranges;
        ranges.reserve(shared_.size());
        for (HostRange& range : shared_) ranges.push_back(&range);
        vmm_.find_files(ranges, mappings);
    }

    std::size_t read(std::uint64_t host, MutableBytes out) const {
        for (const HostRange& range : shared_)
            if (range.host <= host && host < range.host + range.size)
                return positive(vmm_.read(range, host - range.host, out));
        return positive(vmm_.read({host, out.size(), nullptr, 0}, 0, out));
    }

private:
    static std::size_t positive(ssize_t count) {
        return static_cast<std::size_t>(std::max<ssize_t>(count, 0));
    }

    const VmmMemory& vmm_;
    std::vector<HostRange> shared_;
};

}  // namespace

Result<void> SlotMemory::load(std::span<const Witness> witnesses) {
    const auto mappings = vmm_.mappings();
    const bool keeps = !ranges_.empty() && !moved(mappings);
    const MonitorMemory monitor{vmm_, mappings};
    auto slots = find_slots(
        mappings, [&](std::uint64_t host, MutableBytes out) { return monitor.read(host, out); }, witnesses);
    if (keeps && (!slots || slots->confirmed < confirmed_)) return {};
    if (slots) {
        use(std::move(*slots), mappings);
        return {};
    }
    use({.notes = {slots.error().message}}, mappings);
    return fail(std::move(slots).error());
}

void SlotMemory::use(Slots slots, std::span<const Mapping> mappings) {
    ranges_.clear();
    std::vector<MemoryRegion> regions;
    for (Slot& slot : slots.slots) {
        const Mapping* mapping = mapping_at(mappings, slot.host);
        if (mapping == nullptr) continue;
        regions.push_back({slot.start, slot.size, slot.kind, std::move(slot.name)});
        ranges_.push_back({regions.back(), {slot.host, slot.size, nullptr, 0}, *mapping});
    }
    std::vector<HostRange*> bytes;
    bytes.reserve(ranges_.size());
    for (Range& range : ranges_) bytes.push_back(&range.bytes);
    vmm_.find_files(bytes, mappings);
    regions_.push_front(std::move(regions));
    while (regions_.size() > kept_regions) regions_.pop_back();
    notes_ = std::move(slots.notes);
    confirmed_ = slots.confirmed;
}

bool SlotMemory::moved() const { return moved(vmm_.mappings()); }

bool SlotMemory::moved(std::span<const Mapping> mappings) const {
    return std::ranges::any_of(ranges_, [&](const Range& range) {
        const Mapping* now = mapping_at(mappings, range.bytes.host);
        const Mapping& then = range.mapping;
        return now == nullptr || now->start != then.start || now->end != then.end ||
               now->inode != then.inode || now->offset != then.offset || now->shared != then.shared ||
               now->writable != then.writable;
    });
}

std::optional<std::uint64_t> SlotMemory::host_address(PhysicalAddress address) const {
    const Range* range = find(address);
    if (range == nullptr || range->bytes.host == 0) return std::nullopt;
    return range->bytes.host + (raw(address) - raw(range->region.start));
}

const SlotMemory::Range* SlotMemory::find(PhysicalAddress address) const {
    const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), address,
                                        [](PhysicalAddress a, const Range& r) { return a < r.region.start; });
    if (after == ranges_.begin() || raw(address) >= std::prev(after)->region.end()) return nullptr;
    return &*std::prev(after);
}

Error SlotMemory::cannot(std::string_view what, PhysicalAddress address, ssize_t result) const {
    if (!vmm_.alive()) return vmm_.gone();
    const Range* range = find(address);
    if (range == nullptr) return {Errc::bad_address, "no memory at physical address " + hex(address)};
    if (result == 0)
        return {Errc::bad_address, "physical address " + hex(address) + " is " + range->region.name +
                                       ", which is not " + std::string{what}};
    return vmm_.error(result, address, range->region.name);
}

Result<std::size_t> SlotMemory::read_some(PhysicalAddress address, MutableBytes out) {
    look_first();
    std::size_t done = 0;
    while (done < out.size()) {
        const Range* range = find(address + done);
        ssize_t count = 0;
        if (range != nullptr) {
            const auto offset = raw(address) + done - raw(range->region.start);
            const auto length = std::min<std::uint64_t>(out.size() - done, range->region.size - offset);
            count = vmm_.read(range->bytes, offset, out.subspan(done, length));
        }
        if (count <= 0) {
            if (done > 0) break;
            return fail(cannot("read", address, count));
        }
        done += static_cast<std::size_t>(count);
    }
    return done;
}

// What lies in the monitor's process, with one system call for many; the rest, and whatever that leaves, one
// by one.
void SlotMemory::read_scattered(std::span<Fragment> fragments) {
    look_first();
    std::vector<VmmMemory::Direct> direct;
    for (auto& fragment : fragments) {
        fragment.read = 0;
        const Range* range = find(fragment.address);
        if (range == nullptr || range->bytes.file || fragment.out.empty()) continue;
        const auto offset = raw(fragment.address) - raw(range->region.start);
        if (fragment.out.size() <= range->region.size - offset)
            direct.push_back({&fragment, range->bytes.host + offset});
    }
    vmm_.read_at_once(direct);
    for (auto& fragment : fragments)
        if (fragment.read == 0) fragment.read = read_some(fragment.address, fragment.out).value_or(0);
}

Result<std::size_t> SlotMemory::write_some(PhysicalAddress address, ConstBytes in) {
    look_first();
    std::size_t done = 0;
    while (done < in.size()) {
        const Range* range = find(address + done);
        ssize_t count = 0;
        if (range != nullptr && range->region.kind == MemoryRegion::Kind::ram) {
            const auto offset = raw(address) + done - raw(range->region.start);
            const auto length = std::min<std::uint64_t>(in.size() - done, range->region.size - offset);
            count = vmm_.write(range->bytes, offset, in.subspan(done, length));
        }
        if (count <= 0) {
            if (done > 0) break;
            return fail(cannot("written to", address, count));
        }
        done += static_cast<std::size_t>(count);
    }
    return done;
}

std::string SlotMemory::access_method() const {
    const auto largest =
        std::ranges::max_element(ranges_, {}, [](const Range& range) { return range.region.size; });
    return largest == ranges_.end() ? "none" : VmmMemory::access_method(largest->bytes);
}

}  // namespace exo::kvm
