#include "backends/xen/memory.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace exo::xen {

ForeignMemory::ForeignMemory(FrameMapper& mapper, FrameNumbers* numbers, std::vector<MemoryRegion> regions,
                             const Options& options)
    : mapper_(mapper),
      numbers_(numbers),
      regions_(std::move(regions)),
      frames_in_window_(options.small ? 1 : window_frames),
      now_(options.now) {}

const MemoryRegion* ForeignMemory::region_of(PhysicalAddress address) const {
    const auto it = std::ranges::find_if(regions_, [&](const MemoryRegion& region) {
        return raw(region.start) <= raw(address) && raw(address) < region.end();
    });
    return it == regions_.end() ? nullptr : &*it;
}

Error ForeignMemory::hole(PhysicalAddress address) const {
    if (region_of(address) == nullptr)
        return {Errc::bad_address, "no memory at physical address " + hex(address)};
    return {Errc::bad_address, "physical address " + hex(address) +
                                   " is a hole: the guest has given that memory back, or it is not its own"};
}

void ForeignMemory::expire() {
    if (running_ && !windows_.empty() && ran_ + (now_() - since_) > trusted_run) release();
}

Result<const ForeignMemory::Window*> ForeignMemory::window(std::uint64_t number) {
    if (const auto kept = by_number_.find(number); kept != by_number_.end()) {
        windows_.splice(windows_.begin(), windows_, kept->second);
        return &windows_.front();
    }
    std::array<std::uint64_t, window_frames> numbers{};
    std::array<int, window_frames> errors{};
    const auto frames = std::span{numbers}.first(frames_in_window_);
    const auto first = number * frames_in_window_;
    for (std::size_t i = 0; i < frames.size(); ++i) frames[i] = first + i;
    if (numbers_ != nullptr) CHECK_OK(numbers_->frames_of(first, frames));
    // What is in no region is not asked for: a device's memory, passed through, would be mapped too.
    std::bitset<window_frames> wanted;
    std::size_t last = 0;
    for (std::size_t i = 0; i < frames.size(); ++i) {
        const bool inside = region_of(PhysicalAddress{(first + i) << page_shift}) != nullptr;
        if (!inside) frames[i] = no_frame;
        wanted.set(i, frames[i] != no_frame);
        if (wanted[i]) last = i + 1;
    }
    Window made{.number = number};
    if (last > 0) {
        auto* pages = TRY(mapper_.map(frames.first(last), false, std::span{errors}.first(last)));
        made.pages = Mapped{mapper_, pages, last};
        for (std::size_t i = 0; i < last; ++i) made.present.set(i, wanted[i] && errors.at(i) == 0);
    }
    if (windows_.empty() && running_) since_ = now_();
    if (windows_.size() >= most_windows) {
        by_number_.erase(windows_.back().number);
        windows_.pop_back();
    }
    windows_.push_front(std::move(made));
    by_number_[number] = windows_.begin();
    return &windows_.front();
}

Result<std::size_t> ForeignMemory::read_some(PhysicalAddress address, MutableBytes out) {
    expire();
    std::size_t done = 0;
    while (done < out.size()) {
        const auto at = raw(address) + done;
        if (at < raw(address)) break;
        const auto frame = at >> page_shift;
        if (region_of(PhysicalAddress{at}) == nullptr) break;
        const auto found = window(frame / frames_in_window_);
        if (!found) {
            if (done > 0) break;
            return fail(found.error());
        }
        const auto index = frame % frames_in_window_;
        if (!(*found)->present[index]) break;
        const auto offset = at % page_bytes;
        const auto length = std::min(page_bytes - offset, out.size() - done);
        std::memcpy(out.data() + done, (*found)->pages.data() + index * page_bytes + offset, length);
        done += length;
    }
    if (done == 0 && !out.empty()) return fail(hole(address));
    return done;
}

Result<std::uint64_t> ForeignMemory::frame_of(std::uint64_t number) {
    std::uint64_t frame = number;
    if (numbers_ != nullptr) CHECK_OK(numbers_->frames_of(number, std::span{&frame, 1}));
    if (frame == no_frame) return fail(hole(PhysicalAddress{number << page_shift}));
    return frame;
}

Result<std::size_t> ForeignMemory::write_some(PhysicalAddress address, ConstBytes in) {
    expire();
    if (in.empty()) return 0;
    if (region_of(address) == nullptr) return fail(hole(address));
    const std::uint64_t frame = TRY(frame_of(raw(address) >> page_shift));
    int error = 0;
    auto* page = TRY(mapper_.map(std::span{&frame, 1}, true, std::span{&error, 1}));
    const Mapped mapped{mapper_, page, 1};
    if (error != 0)
        return fail(Errc::bad_address, "physical address " + hex(address) + " cannot be written: " +
                                           std::strerror(error > 0 ? error : -error));
    const auto offset = raw(address) % page_bytes;
    const auto length = std::min(page_bytes - offset, in.size());
    std::memcpy(page + offset, in.data(), length);
    return length;
}

Result<PhysicalAddress> ForeignMemory::from_machine(PhysicalAddress address) {
    if (numbers_ == nullptr) return address;
    const auto number = TRY(numbers_->number_of(raw(address) >> page_shift));
    return PhysicalAddress{number << page_shift | raw(address) % page_bytes};
}

void ForeignMemory::stands(std::uint64_t frames) {
    const bool changed = frames_ && *frames_ != frames;
    if (running_) ran_ += now_() - since_;
    if (changed || ran_ > trusted_run) release();
    running_ = false;
    frames_ = frames;
}

void ForeignMemory::runs() {
    running_ = true;
    since_ = now_();
}

void ForeignMemory::release() {
    by_number_.clear();
    windows_.clear();
    ran_ = {};
    if (numbers_ != nullptr) numbers_->forget();
}

}  // namespace exo::xen
