// Z and z: the type is one that exists, and what is left for conditions is the end of the packet.
#include "fuzz.h"
#include "rsp/requests.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text = exo::fuzz::as_text(data, size);
    const auto request = exo::rsp::Breakpoint::parse(text);
    if (!request) return 0;
    exo::fuzz::require(request->type <= 4);
    exo::fuzz::require(text.ends_with(request->conditions));
    exo::fuzz::require(request->conditions.empty() == (text.find(';') == std::string_view::npos));
    return 0;
}
