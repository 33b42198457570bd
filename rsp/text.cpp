// Guest text inside XML and JSON. A name in the guest may be any bytes, and one bad byte would make a client
// refuse the whole document.
#include <array>
#include <cstddef>

#include "rsp/hex.h"
#include "rsp/stop_reply.h"

namespace exo::rsp {
namespace {

constexpr char substitute = '?';

struct Lead {
    unsigned char first, last;             // lead bytes
    unsigned char second_min, second_max;  // what the second byte may be; further ones are 80..bf
    std::size_t length;
};

// Unicode standard, table 3-7 "Well-Formed UTF-8 Byte Sequences".
constexpr std::array<Lead, 8> well_formed{{
    {0xc2, 0xdf, 0x80, 0xbf, 2},
    {0xe0, 0xe0, 0xa0, 0xbf, 3},
    {0xe1, 0xec, 0x80, 0xbf, 3},
    {0xed, 0xed, 0x80, 0x9f, 3},
    {0xee, 0xef, 0x80, 0xbf, 3},
    {0xf0, 0xf0, 0x90, 0xbf, 4},
    {0xf1, 0xf3, 0x80, 0xbf, 4},
    {0xf4, 0xf4, 0x80, 0x8f, 4},
}};

// How many bytes the character at the front takes, 0 when it is not well-formed or is U+FFFE or U+FFFF,
// which are no characters to XML (XML 1.0, 2.2).
std::size_t character_length(std::string_view text) {
    const auto byte = [text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    if (byte(0) < 0x80) return 1;
    if (text.starts_with("\xef\xbf\xbe") || text.starts_with("\xef\xbf\xbf")) return 0;
    for (const Lead& lead : well_formed) {
        if (byte(0) < lead.first || byte(0) > lead.last) continue;
        if (text.size() < lead.length || byte(1) < lead.second_min || byte(1) > lead.second_max) return 0;
        for (std::size_t i = 2; i < lead.length; ++i) {
            if (byte(i) < 0x80 || byte(i) > 0xbf) return 0;
        }
        return lead.length;
    }
    return 0;
}

// Calls `one` for each single byte, appends longer characters as they are, what is ill-formed as '?'.
template <typename AppendByte>
void append_characters(std::string& out, std::string_view text, AppendByte append_byte) {
    while (!text.empty()) {
        const std::size_t length = character_length(text);
        if (length == 0) {
            out += substitute;
        } else if (length == 1) {
            append_byte(text.front());
        } else {
            out += text.substr(0, length);
        }
        text.remove_prefix(length == 0 ? 1 : length);
    }
}

}  // namespace

void append_xml(std::string& out, std::string_view text) {
    append_characters(out, text, [&out](char c) {
        switch (c) {
            case '&': out += "&amp;"; break;
            case '<': out += "&lt;"; break;
            case '>': out += "&gt;"; break;
            case '"': out += "&quot;"; break;
            case '\'': out += "&apos;"; break;
            // As references, or an attribute's value is normalised to spaces (XML 1.0, 3.3.3).
            case '\t': out += "&#9;"; break;
            case '\n': out += "&#10;"; break;
            case '\r': out += "&#13;"; break;
            // XML 1.0 has no way to write the others (2.2).
            default: out += static_cast<unsigned char>(c) < 0x20 ? substitute : c; break;
        }
    });
}

void append_json(std::string& out, std::string_view text) {
    append_characters(out, text, [&out](char c) {
        switch (c) {
            case '"': out += "\\\""; break;
            case '\\': out += "\\\\"; break;
            case '\n': out += "\\n"; break;
            case '\r': out += "\\r"; break;
            case '\t': out += "\\t"; break;
            default:
                if (static_cast<unsigned char>(c) >= 0x20) {
                    out += c;
                } else {
                    out += "\\u00";
                    append_hex(out, std::string_view(&c, 1));
                }
        }
    });
}

}  // namespace exo::rsp
