#include "os-awareness/linux/kernel_symbols.h"

#include <cctype>
#include <charconv>

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

// BUILD-ID= of VMCOREINFO (5.9, 0935288c6e00): hex digits.
std::vector<std::byte> build_id_of(const VmCoreInfo& info) {
    const auto text = info.find("BUILD-ID").value_or("");
    std::vector<std::byte> id;
    for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
        std::uint8_t byte = 0;
        const auto [end, error] = std::from_chars(text.data() + i, text.data() + i + 2, byte, 16);
        if (error != std::errc{} || end != text.data() + i + 2) return {};
        id.push_back(std::byte{byte});
    }
    return id;
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

Result<cfi::Bytes> kernel_frames(KernelImage& image, const Marks& marks, std::uint64_t slide,
                                 std::vector<std::string>& problems) {
    const OrcTable table = TRY(read_kernel_orc(*image.space, image.symbols));
    if (table.malformed != 0) {
        problems.push_back(std::to_string(table.malformed) + " entries of the ORC table make no sense");
    }
    KernelFrames frames{slide, VirtualAddress{raw(marks.start) - slide}};
    if (auto added = frames.add(table, image.symbols, image.end); !added) {
        problems.push_back("not all frames: " + added.error().message);
    }
    frames.end_at_user_mode();
    return frames.take();
}

Finding build_id_finding(KernelImage& image) {
    const auto id = kernel_build_id(image);
    if (!id) return {"build_id", "unknown", id.error().message};
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    for (const auto byte : *id) {
        text.push_back(digits.at(std::to_integer<std::size_t>(byte) >> 4U));
        text.push_back(digits.at(std::to_integer<std::size_t>(byte) & 15U));
    }
    return {"build_id", std::move(text), read_notes(image).empty() ? "VMCOREINFO" : "the kernel's notes"};
}

Finding types_finding(const Result<const Btf*>& btf) {
    if (!btf) return {"types", "none", btf.error().message};
    const auto& incomplete = (*btf)->incomplete();
    if (!incomplete.empty()) return {"types", "some", "BTF, not all of it: " + incomplete};
    return {"types", "yes", "BTF"};
}

Finding frames_finding(KernelImage& image) {
    const auto orc = summarize_kernel_orc(*image.space, image.symbols);
    if (!orc) return {"frames", "none", orc.error().message};
    return {
        "frames",
        std::to_string(orc->location.count) + " rows of ORC, layout " + std::string{to_string(orc->layout)},
        orc->layout_found_by};
}

Finding symbols_finding(const KernelImage& image) {
    if (image.data_symbols) return {"symbols", "functions and data", "kallsyms"};
    std::string how = "kallsyms of a kernel without CONFIG_KALLSYMS_ALL";
    if (image.added_symbols != 0) how += "; " + std::to_string(image.added_symbols) + " more of VMCOREINFO";
    return {"symbols", "functions only", std::move(how)};
}

bool is_version(std::string_view word) {
    return word.find('.') != word.npos && word.find_first_not_of("0123456789.") == word.npos;
}

}  // namespace

Result<std::vector<std::byte>> kernel_build_id(KernelImage& image) {
    const auto notes = read_notes(image);
    if (const auto id = find_build_id(notes); !id.empty()) {
        return std::vector<std::byte>{id.begin(), id.end()};
    }
    if (image.vmcoreinfo) {
        if (auto id = build_id_of(*image.vmcoreinfo); !id.empty()) return id;
    }
    return fail(Errc::not_found,
                "the guest's kernel shows no build id: no symbols of its notes, or none in "
                "them, and no BUILD-ID in VMCOREINFO");
}

std::vector<Finding> kernel_symbol_findings(KernelImage& image, const Result<const Btf*>& btf) {
    return {build_id_finding(image), symbols_finding(image), types_finding(btf), frames_finding(image)};
}

// "(gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0, GNU ld …)" or, in older kernels, "(gcc version 8.3.0
// (Debian 8.3.0-6)) #1": the first number with a point that is not in parentheses of its own.
std::string producer_of(std::string_view banner) {
    std::string unknown = "exogdb";
    const auto begin = banner.find("(gcc");
    if (begin == banner.npos) return unknown;
    int depth = 0;
    std::string word;
    for (const char c : banner.substr(begin + 1)) {
        depth += c == '(' ? 1 : 0;
        const bool inside = depth > 0;
        depth -= c == ')' ? 1 : 0;
        if (depth < 0) break;
        const bool part =
            !inside && (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '-');
        if (part) {
            word += c;
            continue;
        }
        if (is_version(word)) return "GNU C " + word;
        word.clear();
    }
    return is_version(word) ? "GNU C " + word : unknown;
}

Result<std::vector<std::string>> write_code_symbols(KernelImage& image, SymbolFileInput input,
                                                    std::vector<std::string> problems, ByteSink& sink) {
    const std::string producer = producer_of(image.banner);
    input.producer = producer;
    input.read_code = [&](VirtualAddress at, MutableBytes out) {
        return image.space->read_some(at, out).value_or(0);
    };
    const auto summary = TRY(write_symbol_file(input, sink));
    problems.insert(problems.end(), summary.problems.begin(), summary.problems.end());
    return problems;
}

Result<std::vector<std::string>> write_kernel_symbols(KernelImage& image, const Btf* btf, std::uint64_t moved,
                                                      ByteSink& sink) {
    std::vector<std::string> problems;
    const Marks marks{image};
    const std::uint64_t slide = image.slide - moved;
    const auto frames = kernel_frames(image, marks, slide, problems);
    if (!frames) problems.push_back("no frames: " + frames.error().message);
    const auto build_id = kernel_build_id(image);

    SymbolFileInput input;
    input.image = {&image.symbols, slide,
                   kernel_sections(image.symbols, slide, raw(image.start) - slide, raw(image.end) - slide)};
    input.others = {marks.group(slide)};
    input.btf = btf;
    if (build_id) input.build_id = *build_id;
    if (frames) input.frames = *frames;
    return write_code_symbols(image, std::move(input), std::move(problems), sink);
}

}  // namespace exo::os
