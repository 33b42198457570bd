#include "backends/xen/p2m.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>

#include "backends/api/memory.h"
#include "backends/xen/headers.h"

namespace exo::xen {
namespace {

constexpr std::uint64_t entries_in_page = page_bytes / sizeof(std::uint64_t);
constexpr std::uint64_t piece_frames = 512;  // of Xen's table: 2 MiB
constexpr std::uint64_t entries_in_piece = piece_frames * entries_in_page;
constexpr std::size_t most_pages = 1024;
constexpr int attempts = 8;

// The guest's marks for what is not its own memory: of another domain, or of a device
// (arch/x86/include/asm/xen/page.h, FOREIGN_FRAME_BIT and IDENTITY_FRAME_BIT).
constexpr std::uint64_t not_own = 3ULL << 62;

Result<Mapped> map_one(FrameMapper& mapper, std::uint64_t frame) {
    int error = 0;
    auto* page = TRY(mapper.map(std::span{&frame, 1}, false, std::span{&error, 1}));
    Mapped mapped{mapper, page, 1};
    if (error != 0) return fail(Errc::bad_address, "machine frame " + hex(frame) + " is not this guest's");
    return mapped;
}

std::uint64_t word(const std::byte* at) {
    std::uint64_t value = 0;
    std::memcpy(&value, at, sizeof value);
    return value;
}

}  // namespace

Result<std::uint64_t> MachineToPhysical::number_of(std::uint64_t frame) {
    const auto piece = frame / entries_in_piece;
    if (piece >= extents_.size()) return no_frame;
    auto kept = pieces_.find(piece);
    if (kept == pieces_.end()) {
        std::vector<std::uint64_t> frames(piece_frames);
        std::vector<int> errors(piece_frames);
        for (std::uint64_t i = 0; i < piece_frames; ++i) frames[i] = extents_[piece] + i;
        auto* pages = TRY(mapper_.map(frames, false, errors));
        Mapped mapped{mapper_, pages, frames.size()};
        if (std::ranges::any_of(errors, [](int error) { return error != 0; }))
            return fail(Errc::denied, "Xen does not show its table of the machine's frames to this dom0");
        kept = pieces_.emplace(piece, std::move(mapped)).first;
    }
    return word(kept->second.data() + (frame % entries_in_piece) * sizeof(std::uint64_t));
}

Result<P2m::Anchor> P2m::anchor() {
    if (!shared_) shared_ = TRY(map_one(mapper_, shared_info_));
    arch_shared_info_t info{};
    std::memcpy(&info, shared_->data() + offsetof(shared_info_t, arch), sizeof info);
    Anchor anchor{.size = info.max_pfn, .generation = info.p2m_generation};
    if (info.p2m_cr3 != 0) {
        anchor.root = xen_cr3_to_pfn(info.p2m_cr3);
        anchor.address = info.p2m_vaddr;
    } else if (info.pfn_to_mfn_frame_list_list != 0) {
        anchor.tree = info.pfn_to_mfn_frame_list_list;
    }
    if (anchor.size == 0 || (anchor.root == no_frame && anchor.tree == no_frame))
        return fail(
            Errc::not_found,
            "the guest's kernel has not told where its memory is (p2m); try again when it has booted");
    return anchor;
}

Result<std::uint64_t> P2m::size() { return TRY(anchor()).size; }

Result<const std::byte*> P2m::page(std::uint64_t frame) {
    if (const auto kept = pages_.find(frame); kept != pages_.end()) return kept->second.data();
    if (pages_.size() >= most_pages) pages_.clear();
    return pages_.emplace(frame, TRY(map_one(mapper_, frame))).first->second.data();
}

Result<std::uint64_t> P2m::entry(std::uint64_t frame, std::uint64_t index) {
    return word(TRY(page(frame)) + index * sizeof(std::uint64_t));
}

// Four levels and small pages: a PV guest has no others. Intel SDM vol. 3A 4.5.
Result<std::uint64_t> P2m::walk(std::uint64_t root, std::uint64_t address) {
    constexpr std::uint64_t present = 1;
    std::uint64_t frame = root;
    for (unsigned shift = 39;; shift -= 9) {
        const auto found = TRY(entry(frame, address >> shift & (entries_in_page - 1)));
        if ((found & present) == 0) return no_frame;
        frame = (found & 0x000f'ffff'ffff'f000) >> page_shift;
        if (shift == page_shift) return frame;
    }
}

Result<std::uint64_t> P2m::leaf(const Anchor& anchor, std::uint64_t index) {
    if (anchor.root != no_frame) return walk(anchor.root, anchor.address + index * page_bytes);
    if (index >= entries_in_page * entries_in_page) return no_frame;
    const auto middle = TRY(entry(anchor.tree, index / entries_in_page));
    return entry(middle, index % entries_in_page);
}

// False where the guest has moved its table meanwhile.
Result<bool> P2m::copy(const Anchor& anchor, std::uint64_t first, std::span<std::uint64_t> frames) {
    std::ranges::fill(frames, no_frame);
    for (std::size_t done = 0; done < frames.size() && first + done < anchor.size;) {
        const auto number = first + done;
        const auto index = number % entries_in_page;
        const auto count = std::min({entries_in_page - index, frames.size() - done, anchor.size - number});
        const auto frame = TRY(leaf(anchor, number / entries_in_page));
        if (frame != no_frame) {
            const auto* from = TRY(page(frame)) + index * sizeof(std::uint64_t);
            std::memcpy(&frames[done], from, count * sizeof(std::uint64_t));
        }
        done += count;
    }
    for (auto& frame : frames)
        if ((frame & not_own) != 0) frame = no_frame;
    const auto now = TRY(this->anchor());
    return now.generation == anchor.generation && (now.generation & 1) == 0;
}

Result<void> P2m::frames_of(std::uint64_t first, std::span<std::uint64_t> frames) {
    for (int attempt = 0; attempt < attempts; ++attempt) {
        const auto copied = copy(TRY(anchor()), first, frames);
        if (copied && *copied) return {};
        if (!copied && attempt + 1 == attempts) return fail(copied.error());
        forget();
    }
    return fail(Errc::busy, "the guest is changing its table of memory (p2m); try again");
}

Result<std::uint64_t> P2m::number_of(std::uint64_t frame) {
    const auto number = TRY(machine_.number_of(frame));
    std::uint64_t back = no_frame;
    // Xen's table has a number for frames of every domain: this guest's own table decides.
    if (number != no_frame && number < TRY(size())) CHECK_OK(frames_of(number, std::span{&back, 1}));
    if (back != frame)
        return fail(Errc::bad_address, "machine frame " + hex(frame) + " is none of this guest's memory");
    return number;
}

}  // namespace exo::xen
