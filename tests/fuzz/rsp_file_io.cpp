// vFile: whatever parses is what was written.
#include "fuzz.h"
#include "rsp/file_io.h"
#include "rsp/hex.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace exo::rsp;
    const std::string_view text = exo::fuzz::as_text(data, size);
    if (const auto open = OpenFile::parse(text)) {
        exo::fuzz::require(!open->name.empty() && text.find(',') == 2 * open->name.size());
    }
    if (const auto read = ReadFile::parse(text)) {
        std::string again;
        append_hex_number(again, read->descriptor);
        again += ',';
        append_hex_number(again, read->count);
        again += ',';
        append_hex_number(again, read->offset);
        const auto second = ReadFile::parse(again);
        exo::fuzz::require(second && second->descriptor == read->descriptor && second->count == read->count &&
                           second->offset == read->offset);
    }
    if (const auto name = FileName::parse(text)) exo::fuzz::require(2 * name->name.size() == text.size());
    if (const auto file = FileDescriptor::parse(text)) exo::fuzz::require(text.size() <= 16);
    return 0;
}
