#include "tests/support/kallsyms_writer.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string_view>

namespace exo::test {
namespace {

using os::AddressEncoding;
using os::NameLength;

struct Tokens {
    std::array<std::string, 256> table;
    std::map<std::string, std::uint8_t, std::less<>> codes;
    std::size_t longest = 1;
};

// Each character in use is its own token; the free codes get common parts of names, and then made-up ones, so
// that no token is empty, as in a real kernel.
Tokens make_tokens(const std::vector<NamedSymbol>& symbols) {
    std::set<char> used{'0', '1', '2', '3', '4', '5', '6', '7', '8', '9'};
    std::map<std::string, int> counts;
    int looked_at = 0;
    for (const auto& symbol : symbols) {
        const std::string text = symbol.type + symbol.name;
        used.insert(text.begin(), text.end());
        if (++looked_at > 100) continue;  // enough to find what names have in common
        for (std::size_t i = 0; i < text.size(); ++i) {
            for (std::size_t n = 2; n <= 4 && i + n <= text.size(); ++n) ++counts[text.substr(i, n)];
        }
    }
    std::vector<std::pair<int, std::string>> common;
    for (const auto& [part, count] : counts) common.emplace_back(count * static_cast<int>(part.size()), part);
    std::ranges::sort(common, std::greater{});

    Tokens tokens;
    std::size_t next = 0;
    for (int code = 0; code < 256; ++code) {
        const char c = static_cast<char>(code);
        std::string& token = tokens.table[static_cast<std::size_t>(code)];
        if (used.contains(c)) {
            token = c;
        } else if (next < common.size()) {
            token = common[next++].second;
        } else {
            token = "~" + std::to_string(code);
        }
        tokens.longest = std::max(tokens.longest, token.size());
        tokens.codes.emplace(token, static_cast<std::uint8_t>(code));
    }
    return tokens;
}

std::vector<std::uint8_t> compress(const Tokens& tokens, std::string_view text) {
    std::vector<std::uint8_t> codes;
    while (!text.empty()) {
        for (std::size_t n = std::min(tokens.longest, text.size()); n > 0; --n) {
            const auto it = tokens.codes.find(text.substr(0, n));
            if (it == tokens.codes.end()) continue;
            codes.push_back(it->second);
            text.remove_prefix(n);
            break;
        }
    }
    return codes;
}

class Writer {
public:
    explicit Writer(std::size_t alignment) : alignment_(alignment) {}

    std::size_t align(std::size_t to) {
        bytes.resize((bytes.size() + to - 1) / to * to);
        return bytes.size();
    }
    std::size_t align() { return align(alignment_); }
    void number(std::uint64_t value, std::size_t size) {
        for (std::size_t i = 0; i < size; ++i) bytes.push_back(static_cast<std::byte>(value >> (8 * i)));
    }
    void text(std::string_view value) {
        for (const char c : value) bytes.push_back(static_cast<std::byte>(c));
        bytes.push_back(std::byte{0});
    }

    std::vector<std::byte> bytes;

private:
    std::size_t alignment_;
};

struct Job {
    const KallsymsShape& shape;
    const std::vector<NamedSymbol>& symbols;
    std::uint64_t base;
    VirtualAddress at;
    Writer writer;
    WrittenKallsyms written;

    void addresses() {
        written.addresses = writer.align();
        for (const auto& symbol : symbols) {
            const std::uint64_t place = raw(at) + writer.bytes.size();
            switch (shape.encoding) {
                case AddressEncoding::absolute: writer.number(symbol.address, 8); break;
                case AddressEncoding::base_relative: writer.number(symbol.address - base, 4); break;
                case AddressEncoding::place_relative: writer.number(symbol.address - place, 4); break;
                case AddressEncoding::absolute_percpu:
                    writer.number(symbol.address < base ? symbol.address : base - 1 - symbol.address, 4);
                    break;
            }
        }
        if (shape.encoding == AddressEncoding::base_relative ||
            shape.encoding == AddressEncoding::absolute_percpu) {
            writer.align(8);
            writer.number(base, 8);
        }
    }

    void names(const Tokens& tokens) {
        written.num_syms = writer.align();
        writer.number(symbols.size(), 4);
        written.names = writer.align();
        std::vector<std::uint64_t> markers;
        for (std::size_t i = 0; i < symbols.size(); ++i) {
            if (i % 256 == 0) markers.push_back(writer.bytes.size() - written.names);
            const auto codes = compress(tokens, symbols[i].type + symbols[i].name);
            if (shape.length == NameLength::uleb128 && codes.size() > 0x7f) {
                writer.number((codes.size() & 0x7f) | 0x80, 1);
                writer.number(codes.size() >> 7, 1);
            } else {
                writer.number(codes.size(), 1);
            }
            for (const auto code : codes) writer.number(code, 1);
        }
        written.markers = writer.align();
        for (const auto marker : markers) writer.number(marker, shape.marker_bytes);
    }

    void sequence_numbers() {
        if (shape.sequence_bytes == 0) return;
        writer.align();
        for (std::size_t i = 0; i < symbols.size(); ++i) {
            const std::size_t number = symbols.size() - 1 - i;
            for (int byte = shape.sequence_bytes - 1; byte >= 0; --byte)
                writer.number(number >> (8 * byte), 1);
        }
    }

    void tokens_of(const Tokens& tokens) {
        written.token_table = writer.align();
        std::vector<std::size_t> index;
        for (const auto& token : tokens.table) {
            index.push_back(writer.bytes.size() - written.token_table);
            writer.text(token);
        }
        written.token_index = writer.align();
        for (const auto offset : index) writer.number(offset, 2);
    }
};

}  // namespace

WrittenKallsyms write_kallsyms(const KallsymsShape& shape, std::vector<NamedSymbol> symbols,
                               std::uint64_t base, VirtualAddress at) {
    std::ranges::stable_sort(symbols, {}, &NamedSymbol::address);
    const Tokens tokens = make_tokens(symbols);
    Job job{shape, symbols, base, at, Writer{shape.alignment}, {}};
    if (shape.addresses_first) job.addresses();
    job.names(tokens);
    if (shape.addresses_first) job.sequence_numbers();
    job.tokens_of(tokens);
    if (!shape.addresses_first) {
        job.addresses();
        job.sequence_numbers();
    }
    job.written.bytes = std::move(job.writer.bytes);
    return job.written;
}

}  // namespace exo::test
