// A paravirtualised guest knows its memory by numbers of its own (pseudo-physical), which its page tables do
// not hold: they hold the machine's. It tells the toolstack its table of the one by the other (p2m;
// arch-x86/xen.h, struct arch_shared_info), and Xen has one of the other direction for the whole machine
// (m2p).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "backends/xen/frames.h"
#include "backends/xen/memory.h"

namespace exo::xen {

// Xen's table. `extents` are the first frames of its pieces of 2 MiB, as xc_machphys_mfn_list() gives them;
// `mapper` maps frames of DOMID_XEN.
class MachineToPhysical {
public:
    MachineToPhysical(FrameMapper& mapper, std::vector<std::uint64_t> extents)
        : mapper_(mapper), extents_(std::move(extents)) {}
    // What the table says; it says something of the frames of every domain. no_frame for none.
    Result<std::uint64_t> number_of(std::uint64_t frame);

private:
    FrameMapper& mapper_;
    std::vector<std::uint64_t> extents_;
    std::unordered_map<std::uint64_t, Mapped> pieces_;
};

class P2m final : public FrameNumbers {
public:
    // `shared_info`: the frame of the domain's. `mapper` maps the guest's frames by the machine's numbers.
    P2m(FrameMapper& mapper, MachineToPhysical& machine, std::uint64_t shared_info)
        : mapper_(mapper), machine_(machine), shared_info_(shared_info) {}

    // How many numbers there are; not_found while the guest's kernel has not told its table yet.
    Result<std::uint64_t> size();

    Result<void> frames_of(std::uint64_t first, std::span<std::uint64_t> frames) override;
    Result<std::uint64_t> number_of(std::uint64_t frame) override;
    void forget() override {
        pages_.clear();
        shared_.reset();
    }

private:
    // What the guest tells in its shared info page.
    struct Anchor {
        std::uint64_t size = 0;         // numbers
        std::uint64_t root = no_frame;  // of the page tables by which `address` is meant
        std::uint64_t address = 0;      // of the linear table
        std::uint64_t tree = no_frame;  // frame of the table in three levels, of kernels before 4.4
        std::uint64_t generation = 0;   // odd while the guest changes where parts of the table are
    };
    Result<Anchor> anchor();
    Result<const std::byte*> page(std::uint64_t frame);
    Result<std::uint64_t> entry(std::uint64_t frame, std::uint64_t index);
    // The frame of the table's page number `index`; no_frame where it has none.
    Result<std::uint64_t> leaf(const Anchor& anchor, std::uint64_t index);
    Result<std::uint64_t> walk(std::uint64_t root, std::uint64_t address);
    Result<bool> copy(const Anchor& anchor, std::uint64_t first, std::span<std::uint64_t> frames);

    FrameMapper& mapper_;
    MachineToPhysical& machine_;
    std::uint64_t shared_info_;
    std::optional<Mapped> shared_;
    std::unordered_map<std::uint64_t, Mapped> pages_;
};

}  // namespace exo::xen
