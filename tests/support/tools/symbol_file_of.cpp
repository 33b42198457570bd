// symbol_file_of VMLINUX OUTPUT [SLIDE]: the symbol file of a kernel that did not run, for developers.
// VMLINUX is what is compressed in a vmlinuz. With SLIDE (hex) as if it ran there.
#include <elf.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "os-awareness/linux/kallsyms.h"
#include "os-awareness/symbol_file.h"

namespace {

using exo::VirtualAddress;

constexpr std::uint64_t lowest = 0xffff'ffff'8000'0000;

struct LoadedImage {
    std::uint64_t start = 0;
    std::vector<std::byte> bytes;

    [[nodiscard]] exo::ConstBytes range(std::uint64_t from, std::uint64_t to) const {
        return exo::ConstBytes{bytes}.subspan(from - start, to - from);
    }
};

// The segments of the image as they lie in memory; not the one of per-CPU data, which is at 0.
LoadedImage load(const std::string& path) {
    std::ifstream file{path, std::ios::binary};
    const std::vector<char> content{std::istreambuf_iterator<char>{file}, {}};
    Elf64_Ehdr header{};
    if (content.size() < sizeof header) return {};
    std::memcpy(&header, content.data(), sizeof header);
    LoadedImage image;
    for (int i = 0; i < header.e_phnum; ++i) {
        Elf64_Phdr segment{};
        std::memcpy(&segment, &content.at(header.e_phoff + static_cast<std::size_t>(i) * sizeof segment),
                    sizeof segment);
        if (segment.p_type != PT_LOAD || segment.p_vaddr < lowest) continue;
        if (image.start == 0) image.start = segment.p_vaddr;
        const auto at = segment.p_vaddr - image.start;
        image.bytes.resize(std::max<std::size_t>(image.bytes.size(), at + segment.p_memsz));
        std::memcpy(&image.bytes.at(at), &content.at(segment.p_offset), segment.p_filesz);
    }
    return image;
}

// As a kernel that runs elsewhere shows its symbols: per-CPU ones before 6.15 are offsets, which stay.
exo::os::SymbolTable moved(const exo::os::SymbolTable& symbols, std::uint64_t slide) {
    exo::os::SymbolTable out;
    for (const auto& symbol : symbols.by_address()) {
        const auto by = raw(symbol.address) >= lowest ? slide : 0;
        out.add(symbol.address + by, symbol.type, symbols.name(symbol));
    }
    out.finish();
    return out;
}

class FileSink final : public exo::os::ByteSink {
public:
    explicit FileSink(const char* path) : file_(path, std::ios::binary) {}
    exo::Result<void> write(exo::ConstBytes bytes) override {
        file_.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
        size += bytes.size();
        return {};
    }
    std::size_t size = 0;

private:
    std::ofstream file_;
};

// VmHWM or VmRSS of proc(5), in KiB.
long status_kib(std::string_view field) {
    std::ifstream status{"/proc/self/status"};
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with(field)) return std::strtol(line.c_str() + field.size() + 1, nullptr, 10);
    }
    return 0;
}

// From now on VmHWM is counted anew (proc(5), clear_refs).
void reset_peak() { std::ofstream{"/proc/self/clear_refs"} << 5; }

exo::Result<exo::os::Btf> read_btf(const LoadedImage& image, const exo::os::SymbolTable& symbols) {
    const auto begin = symbols.find("__start_BTF");
    const auto end = symbols.find("__stop_BTF");
    if (!begin || !end) return exo::fail(exo::Errc::not_found, "no BTF");
    const auto bytes = image.range(raw(*begin), raw(*end));
    return exo::os::Btf::parse({bytes.begin(), bytes.end()});
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::fputs("usage: symbol_file_of VMLINUX OUTPUT [SLIDE]\n", stderr);
        return 2;
    }
    const auto image = load(argv[1]);
    const auto kallsyms = exo::os::parse_kallsyms(image.bytes, VirtualAddress{image.start});
    if (!kallsyms) {
        std::fprintf(stderr, "%s\n", kallsyms.error().message.c_str());
        return 1;
    }
    const auto btf = read_btf(image, kallsyms->symbols);
    if (!btf) std::fprintf(stderr, "%s\n", btf.error().message.c_str());
    const std::uint64_t slide = argc > 3 ? std::strtoull(argv[3], nullptr, 16) : 0;
    const auto symbols = moved(kallsyms->symbols, slide);
    reset_peak();
    const auto before = status_kib("VmRSS:");

    const auto begin = std::chrono::steady_clock::now();
    exo::os::SymbolFileInput input;
    const auto end = symbols.find("_end");
    input.image = {&symbols, slide,
                   exo::os::kernel_sections(symbols, slide, image.start,
                                            end ? raw(*end) - slide : image.start + image.bytes.size())};
    input.btf = btf ? &*btf : nullptr;
    const auto notes = kallsyms->symbols.find("__start_notes");
    const auto notes_end = kallsyms->symbols.find("__stop_notes");
    if (notes && notes_end)
        input.build_id = exo::os::find_build_id(image.range(raw(*notes), raw(*notes_end)));
    input.read_code = [&](VirtualAddress at, exo::MutableBytes out) {
        const auto offset = raw(at) - slide - image.start;
        const auto count =
            offset < image.bytes.size() ? std::min(out.size(), image.bytes.size() - offset) : 0;
        if (count != 0) std::memcpy(out.data(), &image.bytes[offset], count);
        return count;
    };
    FileSink sink{argv[2]};
    const auto made = exo::os::write_symbol_file(input, sink);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    if (!made) {
        std::fprintf(stderr, "%s\n", made.error().message.c_str());
        return 1;
    }
    std::printf(
        "%.3f s, %zu bytes, peak %ld KiB more than before\n%zu symbols, %zu functions, %zu variables\n",
        took.count(), sink.size, status_kib("VmHWM:") - before, made->symbols, made->functions,
        made->variables);
    for (const auto& problem : made->problems) std::printf("%s\n", problem.c_str());
    return 0;
}
