#include "backends/qemu/memory.h"

#include <algorithm>

namespace exo::qemu {
namespace {

using namespace std::chrono_literals;

// A map that a failed read found unchanged is not asked for again at once: a scan over holes fails at each
// step.
constexpr Clock::duration first_interval = 100ms;
constexpr Clock::duration longest_interval = 5s;
// How old the map may be, of a guest that is running, for an access to the legacy area.
constexpr Clock::duration legacy_age = 1s;

// What the chipset's PAM and SMRAM registers switch between RAM, ROM and nothing (0xa0000 … 0xfffff).
constexpr std::uint64_t legacy_start = 0xa0000;
constexpr std::uint64_t legacy_end = 0x100000;

constexpr std::size_t kept_maps = 16;

bool same_regions(const std::vector<MemoryRegion>& a, const std::vector<MemoryRegion>& b) {
    return std::ranges::equal(a, b, [](const MemoryRegion& x, const MemoryRegion& y) {
        return x.start == y.start && x.size == y.size && x.kind == y.kind && x.name == y.name;
    });
}

}  // namespace

GuestMemory::GuestMemory(Monitor& monitor, const Process& process)
    : monitor_(monitor), vmm_(process, "QEMU") {}
GuestMemory::~GuestMemory() = default;

Result<void> GuestMemory::load() { return refresh(false); }

Result<void> GuestMemory::refresh(bool trust_known) {
    loaded_at_ = Clock::now();  // of an attempt that fails too, so that a scan does not ask at each step
    auto text = TRY(monitor_.hmp("info mtree -f"));
    legacy_stale_ = false;
    if (trust_known && text == map_text_) return {};
    std::vector<Range> ranges;
    for (auto& range : TRY(parse_flat_view(text))) ranges.push_back({std::move(range), {}});
    CHECK_OK(find_hosts(ranges, trust_known));
    find_files(ranges);
    std::vector<MemoryRegion> regions;
    regions.reserve(ranges.size());
    for (const auto& range : ranges) regions.push_back(range.region);
    ranges_ = std::move(ranges);
    if (regions_.empty() || !same_regions(regions_.front(), regions)) regions_.push_front(std::move(regions));
    if (regions_.size() > kept_maps) regions_.pop_back();
    last_hit_ = 0;
    map_text_ = std::move(text);
    refresh_interval_ = first_interval;
    return {};
}

Result<void> GuestMemory::find_hosts(std::vector<Range>& ranges, bool trust_known) {
    for (auto& range : ranges) {
        if (range.region.kind == MemoryRegion::Kind::mmio) continue;
        const auto known = std::find_if(ranges_.begin(), ranges_.end(),
                                        [&](const Range& other) { return other.same_place(range); });
        if (trust_known && known != ranges_.end()) {
            range.host = known->host;
            continue;
        }
        const auto text = TRY(monitor_.hmp("gpa2hva " + hex(range.region.start)));
        if (const auto host = parse_gpa2hva(text))
            range.host = *host;
        else  // the map changed under us, or a range that QEMU does not let us at
            range.region.kind = MemoryRegion::Kind::mmio;
    }
    return {};
}

void GuestMemory::find_files(std::vector<Range>& ranges) {
    std::vector<HostRange*> bytes;
    for (auto& range : ranges) {
        range.bytes = {range.host, range.region.size, nullptr, 0};
        bytes.push_back(&range.bytes);
    }
    vmm_.find_files(bytes);
}

bool GuestMemory::refresh_if_due() {
    if (Clock::now() - loaded_at_ < refresh_interval_) return false;
    const auto before = map_text_;
    const auto interval = refresh_interval_;
    if (!refresh(false)) return false;
    if (map_text_ == before) refresh_interval_ = std::min(interval * 2, longest_interval);
    return true;
}

void GuestMemory::refresh_legacy_area(PhysicalAddress address, std::size_t size) {
    if (raw(address) >= legacy_end || raw(address) + size <= legacy_start) return;
    const bool old = writer_ == nullptr && Clock::now() - loaded_at_ > legacy_age;
    // If the monitor cannot tell, the map that was right a moment ago is the best there is.
    if (legacy_stale_ || old) static_cast<void>(refresh(true));
}

const GuestMemory::Range* GuestMemory::find(PhysicalAddress address) const {
    const auto holds = [&](const Range& range) {
        return range.region.start <= address && raw(address) < range.region.end();
    };
    if (last_hit_ < ranges_.size() && holds(ranges_[last_hit_])) return &ranges_[last_hit_];
    const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), address,
                                        [](PhysicalAddress a, const Range& r) { return a < r.region.start; });
    if (after == ranges_.begin() || !holds(*std::prev(after))) return nullptr;
    last_hit_ = static_cast<std::size_t>(std::prev(after) - ranges_.begin());
    return &*std::prev(after);
}

Error GuestMemory::no_memory_at(PhysicalAddress address) const {
    const auto* range = find(address);
    if (range == nullptr) return {Errc::bad_address, "no memory at physical address " + hex(address)};
    return {Errc::bad_address, "physical address " + hex(address) + " is " + range->region.name +
                                   ", a device, which is not read"};
}

Result<std::size_t> GuestMemory::read_some(PhysicalAddress address, MutableBytes out) {
    if (out.empty()) return 0;
    refresh_legacy_area(address, out.size());
    std::size_t done = 0;
    for (bool retried = false; done < out.size();) {
        const auto* range = find(address + done);
        const bool memory = range != nullptr && range->host != 0;
        ssize_t count = 0;
        if (memory) {
            const auto offset = raw(address) + done - raw(range->region.start);
            const auto length = std::min<std::uint64_t>(out.size() - done, range->region.size - offset);
            count = vmm_.read(range->bytes, offset, out.subspan(done, length));
            if (count > 0) {
                done += static_cast<std::size_t>(count);
                continue;
            }
        }
        if (done > 0) break;
        if (!vmm_.alive()) return fail(vmm_.gone());
        if (!retried) {
            retried = refresh_if_due();
            if (retried) continue;
        }
        return fail(memory ? vmm_.error(count, address, range->region.name) : no_memory_at(address));
    }
    return done;
}

std::optional<std::uint64_t> GuestMemory::host_address(PhysicalAddress address, std::size_t size) const {
    const bool legacy = raw(address) < legacy_end && raw(address) + size > legacy_start;
    const auto* range = find(address);
    if (legacy || range == nullptr || range->host == 0 || range->bytes.file) return std::nullopt;
    const auto offset = raw(address) - raw(range->region.start);
    if (size > range->region.size - offset) return std::nullopt;
    return range->host + offset;
}

// What lies in QEMU's process, with one system call for many; the rest, and whatever that leaves, one by one.
void GuestMemory::read_scattered(std::span<Fragment> fragments) {
    std::vector<VmmMemory::Direct> direct;
    for (auto& fragment : fragments) {
        fragment.read = 0;
        const auto host = host_address(fragment.address, fragment.out.size());
        if (host && !fragment.out.empty()) direct.push_back({&fragment, *host});
    }
    vmm_.read_at_once(direct);
    for (auto& fragment : fragments) {
        if (fragment.read == 0) fragment.read = read_some(fragment.address, fragment.out).value_or(0);
    }
}

Result<std::size_t> GuestMemory::write_range(const Range& range, std::uint64_t offset, ConstBytes in) {
    if (writer_ != nullptr) {
        CHECK_OK(writer_->write_physical(range.region.start + offset, in));
        return in.size();
    }
    const auto count = vmm_.write(range.bytes, offset, in);
    if (count > 0) return static_cast<std::size_t>(count);
    return fail(vmm_.error(count, range.region.start + offset, range.region.name));
}

Result<std::size_t> GuestMemory::write_some(PhysicalAddress address, ConstBytes in) {
    if (in.empty()) return 0;
    refresh_legacy_area(address, in.size());
    if (find(address) == nullptr) refresh_if_due();
    std::size_t done = 0;
    while (done < in.size()) {
        const auto at = address + done;
        const auto* range = find(at);
        const bool writable = range != nullptr && range->region.kind == MemoryRegion::Kind::ram;
        if (!writable) {
            if (done > 0) break;
            if (!vmm_.alive()) return fail(vmm_.gone());
            if (range != nullptr && range->region.kind == MemoryRegion::Kind::rom)
                return fail(Errc::bad_address,
                            "physical address " + hex(at) + " is " + range->region.name + ", read-only");
            return fail(no_memory_at(at));
        }
        const auto offset = raw(at) - raw(range->region.start);
        const auto length = std::min<std::uint64_t>(in.size() - done, range->region.size - offset);
        auto count = write_range(*range, offset, in.subspan(done, length));
        if (!count && done > 0) break;
        done += TRY(std::move(count));
    }
    return done;
}

std::string GuestMemory::access_method() const {
    const auto largest = std::max_element(ranges_.begin(), ranges_.end(), [](const Range& a, const Range& b) {
        return (a.host != 0 ? a.region.size : 0) < (b.host != 0 ? b.region.size : 0);
    });
    if (largest == ranges_.end() || largest->host == 0) return "none";
    return VmmMemory::access_method(largest->bytes);
}

}  // namespace exo::qemu
