// Whatever the guest calls its tasks, a client's XML and JSON parsers see one string in UTF-8.
#include "fuzz.h"
#include "rsp/stop_reply.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text = exo::fuzz::as_text(data, size);
    std::string xml;
    exo::rsp::append_xml(xml, text);
    exo::fuzz::require(xml.find_first_of("<>\"'") == std::string::npos);
    std::string json;
    exo::rsp::append_json(json, text);
    for (std::size_t i = 0; i < json.size(); ++i) {
        exo::fuzz::require(json[i] != '"');
        if (json[i] == '\\') ++i;  // and what it escapes, which must be there
        exo::fuzz::require(i < json.size() && static_cast<unsigned char>(json[i]) >= 0x20);
    }
    for (const std::string& out : {xml, json}) {
        exo::fuzz::require(std::all_of(out.begin(), out.end(),
                                       [](char c) { return static_cast<unsigned char>(c) >= 0x20; }));
    }
    // Once it is clean, JSON of the XML text only escapes backslashes: nothing ill-formed was left.
    std::string again;
    exo::rsp::append_json(again, xml);
    exo::fuzz::require(static_cast<std::size_t>(std::count(xml.begin(), xml.end(), '\\')) ==
                       again.size() - xml.size());
    return 0;
}
