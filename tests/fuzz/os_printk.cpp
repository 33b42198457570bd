// A kernel log in which some bytes were changed: what is read of it ends, is no more than its ring holds, and
// what is not read is said.
#include "fuzz.h"
#include "tests/support/printk_builder.h"

namespace {

using namespace exo;
using namespace exo::test;

constexpr std::size_t changed_bytes = 0x4200;  // of PrintkRing's memory: the variable, the ring, its texts

void change(PrintkRing& log, fuzz::Input& input) {
    const auto at = PrintkRing::memory + input.number(2) % (changed_bytes - 8);
    const auto before = log.space.read_value<std::uint64_t>(at).value_or(0);
    switch (input.byte() % 3) {
        case 0: log.space.put(at, input.number(8)); break;
        case 1: log.space.put(at, before ^ std::uint64_t{1} << input.byte() % 64); break;
        case 2: log.space.put(at, before + input.number(2)); break;
    }
}

// log_buf of before 5.10: the same bytes as its records.
void read_log_buf(PrintkRing& log, std::uint32_t first, std::uint32_t next) {
    constexpr VirtualAddress variables = PrintkRing::memory + 0x8000;
    log.space.put(variables, raw(PrintkRing::data));
    log.space.put(variables + 8, std::uint32_t{512});
    log.space.put(variables + 12, first);
    log.space.put(variables + 16, next);
    os::SymbolTable symbols;
    symbols.add(variables, 'd', "log_buf");
    symbols.add(variables + 8, 'd', "log_buf_len");
    symbols.add(variables + 12, 'd', "log_first_idx");
    symbols.add(variables + 16, 'd', "log_next_idx");
    symbols.finish();
    const auto read = os::read_kernel_log({log.space, symbols, nullptr, nullptr});
    fuzz::require(read.has_value() == (first < 512 && next < 512));
    if (read) fuzz::require(read->records.size() <= 2 * 512 / 16);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input{data, size};
    PrintkRing log;
    if (input.byte() % 2 == 1) log.fit_at_end();
    const auto records = input.byte() % 32U;
    for (std::uint32_t i = 0; i < records; ++i) log.add(std::string(i * 5 % 40, 'x'));
    const bool unchanged = input.rest().empty();
    for (int i = 0; i < 32 && !input.rest().empty(); ++i) change(log, input);
    for (const bool by_btf : {false, true}) {
        const auto read = log.read(by_btf);
        if (unchanged) fuzz::require(read && (records == 0 || !read->records.empty()));
        if (!read) continue;
        fuzz::require(read->records.size() <= os::max_log_records);
        if (unchanged) fuzz::require(read->records.size() <= 16 && read->records.size() <= records);
    }
    read_log_buf(log, static_cast<std::uint32_t>(input.number(2)),
                 static_cast<std::uint32_t>(input.number(2)));
    return 0;
}
