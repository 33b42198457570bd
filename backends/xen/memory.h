// Guest memory, mapped in windows of 2 MiB. Windows are kept, since mapping is dear and reading is not.
//
// When a mapping is no longer the guest's memory: Xen keeps a frame for whoever has it mapped, also when the
// guest gives it back (a balloon) and gets another one for the same address. So a window may be used
//  - while the guest stands: it cannot give anything back;
//  - after it ran for less than `trusted_run` in all, if it has as many frames as before: steps and
//    breakpoints that hit often cost no mapping. That a guest gives frames back and gets as many again within
//    that time would not be seen; balloons move over seconds;
//  - of a guest that runs, for `trusted_run` from its mapping on.
#pragma once

#include <bitset>
#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <unordered_map>
#include <vector>

#include "backends/api/memory.h"
#include "backends/xen/frames.h"

namespace exo::xen {

// The guest's own numbers of frames and those by which they are mapped: a PV guest's P2m, or none.
class FrameNumbers {
public:
    virtual ~FrameNumbers() = default;
    // Of consecutive numbers from `first` on; no_frame for a hole.
    virtual Result<void> frames_of(std::uint64_t first, std::span<std::uint64_t> frames) = 0;
    // The guest's number; bad_address if the frame is not the guest's.
    virtual Result<std::uint64_t> number_of(std::uint64_t frame) = 0;
    virtual void forget() = 0;  // the guest may have changed them
};

class ForeignMemory final : public PhysicalMemory {
public:
    using Clock = std::chrono::steady_clock;
    static constexpr std::size_t window_frames = 512;
    static constexpr std::size_t most_windows = 128;
    static constexpr std::chrono::milliseconds trusted_run{100};

    struct Options {
        bool small = false;  // a frame at a time, for a guest whose memory comes to be when it is touched
        std::function<Clock::time_point()> now = Clock::now;
    };
    // `numbers` is null where the guest's numbers are those that are mapped.
    ForeignMemory(FrameMapper& mapper, FrameNumbers* numbers, std::vector<MemoryRegion> regions,
                  const Options& options);

    Result<std::size_t> read_some(PhysicalAddress address, MutableBytes out) override;
    // Each frame through a mapping of its own: when that ends Xen marks the frame as changed, which a
    // migration goes by (xen/arch/x86/mm.c, put_page_from_l1e() and mark_dirty).
    Result<std::size_t> write_some(PhysicalAddress address, ConstBytes in) override;
    [[nodiscard]] std::span<const MemoryRegion> regions() const override { return regions_; }
    [[nodiscard]] bool has_machine_addresses() const override { return numbers_ != nullptr; }
    Result<PhysicalAddress> from_machine(PhysicalAddress address) override;

    // Told by run control; until the first of these the guest is taken to run. `frames` is how many it has.
    void stands(std::uint64_t frames);
    void runs();
    // A destroyed domain stays, without a name, for as long as somebody has mapped a frame of it.
    void release() override;

    [[nodiscard]] const MappingCosts& costs() const { return mapper_.costs(); }
    [[nodiscard]] std::size_t windows() const { return windows_.size(); }

private:
    struct Window {
        std::uint64_t number = 0;
        Mapped pages;
        std::bitset<window_frames> present;
    };

    [[nodiscard]] const MemoryRegion* region_of(PhysicalAddress address) const;
    [[nodiscard]] Error hole(PhysicalAddress address) const;
    Result<const Window*> window(std::uint64_t number);
    Result<std::uint64_t> frame_of(std::uint64_t number);
    void expire();

    FrameMapper& mapper_;
    FrameNumbers* numbers_;
    std::vector<MemoryRegion> regions_;
    std::size_t frames_in_window_;
    std::list<Window> windows_;  // most recently used first
    std::unordered_map<std::uint64_t, std::list<Window>::iterator> by_number_;
    std::function<Clock::time_point()> now_;
    bool running_ = true;
    std::optional<std::uint64_t> frames_;  // of the guest, when it stood last
    Clock::time_point since_{};            // it runs, or the first window is there
    Clock::duration ran_{};                // before that, with these windows
};

}  // namespace exo::xen
