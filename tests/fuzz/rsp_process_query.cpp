// qfProcessInfo: what is asked for is in the packet, and a name matches itself however it is to match.
#include "fuzz.h"
#include "rsp/hex.h"
#include "rsp/process_query.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text = exo::fuzz::as_text(data, size);
    const auto query = exo::rsp::ProcessQuery::parse(text);
    if (!query) return 0;
    exo::fuzz::require(query->matches_name(query->name));
    exo::fuzz::require(query->name.size() <= text.size() / 2);
    exo::fuzz::require(!query->pid || text.find("pid:") != std::string_view::npos);
    exo::fuzz::require(text.empty() || text.front() == ':');
    return 0;
}
