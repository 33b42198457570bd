#include "os-awareness/linux/kernel_btf.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <vector>

namespace exo::os {
namespace {

constexpr std::size_t search_piece = std::size_t{1} << 20;
constexpr std::size_t search_candidates = 16;

// btf.rst 2: magic, version 1, no flags, a header of 24 bytes.
constexpr std::string_view btf_header_start{"\x9f\xeb\x01\x00\x18\x00\x00\x00", 8};

Result<std::vector<std::byte>> read_blob(AddressSpace& space, VirtualAddress at) {
    std::array<std::byte, Btf::header_bytes> header{};
    CHECK_OK(space.read(at, header));
    std::vector<std::byte> blob(TRY(Btf::blob_size(header)));
    CHECK_OK(space.read(at, blob));
    return blob;
}

std::optional<Btf> kernel_types_at(AddressSpace& space, VirtualAddress at) {
    auto blob = read_blob(space, at);
    if (!blob) return std::nullopt;
    auto btf = Btf::parse(std::move(*blob));
    if (!btf || !btf->find("task_struct", BtfKind::structure)) return std::nullopt;
    return std::move(*btf);
}

Result<KernelBtf> search_image(KernelImage& image) {
    std::vector<std::byte> piece(search_piece);
    std::size_t candidates = 0;
    for (auto at = image.start; at < image.end;) {
        const auto wanted = std::min<std::uint64_t>(piece.size(), raw(image.end) - raw(at));
        const auto count = image.space->read_some(at, MutableBytes{piece}.first(wanted));
        if (!count) {
            const auto next = image.space->next_mapped(at + 1);
            if (!next || *next <= at) break;
            at = *next;
            continue;
        }
        const auto text = as_text(ConstBytes{piece}.first(*count));
        for (auto hit = text.find(btf_header_start); hit != text.npos;
             hit = text.find(btf_header_start, hit + 1)) {
            if (++candidates > search_candidates) break;
            if (auto btf = kernel_types_at(*image.space, at + hit)) {
                return KernelBtf{std::move(*btf), "search of the image: found at " + hex(at + hit)};
            }
        }
        // A header may lie across the end of the piece.
        at = at + (*count > btf_header_start.size() ? *count - btf_header_start.size() + 1 : *count);
    }
    return fail(Errc::not_found, "no symbol __start_BTF, and nothing in the image that looks like BTF");
}

}  // namespace

Result<KernelBtf> read_kernel_btf(KernelImage& image) {
    // 90ceddcb4950 (5.7) gave the linker script these names; objcopy's before.
    for (const auto& [begin, end] :
         {std::pair{"__start_BTF", "__stop_BTF"},
          std::pair{"_binary__btf_vmlinux_bin_start", "_binary__btf_vmlinux_bin_end"}}) {
        const auto from = image.symbols.find(begin);
        if (!from) continue;
        auto blob = TRY(read_blob(*image.space, *from));
        const auto to = image.symbols.find(end);
        if (to && (*to < *from || raw(*to) - raw(*from) < blob.size())) {
            return fail(Errc::bad_data, "BTF at " + hex(*from) + " is longer than its section");
        }
        return KernelBtf{TRY(Btf::parse(std::move(blob))), begin};
    }
    if (!image.data_symbols) return search_image(image);
    return fail(Errc::not_found, "no symbol __start_BTF: a kernel without CONFIG_DEBUG_INFO_BTF");
}

}  // namespace exo::os
