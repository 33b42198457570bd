#include "os-awareness/linux/kernel_symbols.h"

#include "os-awareness/linux/orc_frames.h"
#include "os-awareness/symbol_file.h"

namespace exo::os {
namespace {

constexpr std::size_t max_notes = 1U << 16U;

// From __start_notes to __stop_notes (include/asm-generic/vmlinux.lds.h); empty where they are not known.
std::vector<std::byte> read_notes(KernelImage& image) {
    const auto start = image.symbols.find("__start_notes");
    const auto stop = image.symbols.find("__stop_notes");
    if (!start || !stop || *stop < *start || raw(*stop) - raw(*start) > max_notes) return {};
    std::vector<std::byte> notes(raw(*stop) - raw(*start));
    if (!image.space->read(*start, notes)) return {};
    return notes;
}

// The names of the addresses that stand for what has no code, see orc_frames.h.
struct Marks {
    explicit Marks(const KernelImage& image) : start{raw(image.start) - KernelFrames::marks_below_image} {
        for (const UnwindMark& mark : unwind_marks) symbols.add(start + mark.offset, 'T', mark.symbol);
        symbols.finish();
    }
    [[nodiscard]] SymbolGroup group(std::uint64_t slide) const {
        const std::uint64_t link = raw(start) - slide;
        return {&symbols, slide, {{".unwind_marks", link, link + unwind_marks_bytes, true, false}}};
    }

    VirtualAddress start;
    SymbolTable symbols;
};

Result<cfi::Bytes> kernel_frames(KernelImage& image, const Marks& marks, std::vector<std::string>& problems) {
    const OrcTable table = TRY(read_kernel_orc(*image.space, image.symbols));
    if (table.malformed != 0) {
        problems.push_back(std::to_string(table.malformed) + " entries of the ORC table make no sense");
    }
    KernelFrames frames{image.slide, VirtualAddress{raw(marks.start) - image.slide}};
    if (auto added = frames.add(table, image.symbols, image.end); !added) {
        problems.push_back("not all frames: " + added.error().message);
    }
    frames.end_at_user_mode();
    return frames.take();
}

}  // namespace

Result<std::vector<std::string>> write_kernel_symbols(KernelImage& image, const Btf* btf, ByteSink& sink) {
    std::vector<std::string> problems;
    const Marks marks{image};
    const auto frames = kernel_frames(image, marks, problems);
    if (!frames) problems.push_back("no frames: " + frames.error().message);
    const auto notes = read_notes(image);

    SymbolFileInput input;
    input.image = {&image.symbols, image.slide,
                   kernel_sections(image.symbols, image.slide, raw(image.start) - image.slide,
                                   raw(image.end) - image.slide)};
    input.others = {marks.group(image.slide)};
    input.btf = btf;
    input.build_id = find_build_id(notes);
    if (frames) input.frames = *frames;
    input.read_code = [&](VirtualAddress at, MutableBytes out) {
        return image.space->read_some(at, out).value_or(0);
    };
    const auto summary = TRY(write_symbol_file(input, sink));
    problems.insert(problems.end(), summary.problems.begin(), summary.problems.end());
    return problems;
}

}  // namespace exo::os
