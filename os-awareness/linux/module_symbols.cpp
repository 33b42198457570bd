#include "os-awareness/linux/module_symbols.h"

#include <algorithm>

#include "os-awareness/linux/kernel_symbols.h"
#include "os-awareness/linux/orc_frames.h"
#include "os-awareness/symbol_file.h"

namespace exo::os {
namespace {

// The table tells of init code too, which is freed: its addresses may be another module's by now.
OrcTable rows_in(const OrcTable& table, const Module::Range& range) {
    OrcTable part;
    part.layout = table.layout;
    const auto begin = std::ranges::lower_bound(table.rows, range.start, {}, &OrcRow::address);
    const auto end = std::ranges::lower_bound(table.rows, range.start + range.size, {}, &OrcRow::address);
    if (begin < end) part.rows.assign(begin, end);
    return part;
}

Result<cfi::Bytes> module_frames(KernelImage& image, OrcLayout layout, const Module& module,
                                 const ModuleList::Parts& parts, std::vector<std::string>& problems) {
    const auto table = TRY(read_orc(*image.space, parts.orc, layout));
    if (table.malformed != 0) {
        problems.push_back(std::to_string(table.malformed) + " entries of the ORC table make no sense");
    }
    // The marks are the kernel's, where they are at run time.
    KernelFrames frames{0, VirtualAddress{raw(image.start) - KernelFrames::marks_below_image}};
    for (const auto& range : module.memory) {
        if (!range.executable) continue;
        CHECK_OK(frames.add(rows_in(table, range), parts.symbols, range.start + range.size));
    }
    return frames.take();
}

std::vector<ImageSection> sections_of(const Module& module) {
    std::vector<ImageSection> sections;
    sections.reserve(module.memory.size());
    for (const auto& range : module.memory) {
        sections.push_back({std::string{range.section}, raw(range.start), raw(range.start) + range.size,
                            range.executable, range.writable});
    }
    return sections;
}

}  // namespace

Result<std::vector<std::string>> write_module_symbols(KernelImage& image, const Btf* btf,
                                                      std::optional<OrcLayout> orc, const Module& module,
                                                      ModuleList::Parts parts, ByteSink& sink) {
    auto problems = std::move(parts.problems);
    cfi::Bytes frames;
    if (orc && parts.orc.count != 0) {
        if (auto made = module_frames(image, *orc, module, parts, problems)) {
            frames = *std::move(made);
        } else {
            problems.push_back("no frames: " + made.error().message);
        }
    }
    std::optional<Btf> own;
    if (btf != nullptr && !parts.btf.empty()) {
        if (auto parsed = Btf::parse_split(std::move(parts.btf), *btf)) {
            own = *std::move(parsed);
        } else {
            problems.push_back("no types: " + parsed.error().message);
        }
    }
    const std::string name = module.name + ".ko";
    SymbolFileInput input;
    input.image = {&parts.symbols, 0, sections_of(module)};
    input.btf = own ? &*own : nullptr;
    input.name = name;
    input.frames = frames;
    return write_code_symbols(image, std::move(input), std::move(problems), sink);
}

}  // namespace exo::os
