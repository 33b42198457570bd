// vCont, c, C, s, S: one action for each that was written, none out of nothing. QCatchSyscalls: likewise.
#include "fuzz.h"
#include "rsp/requests.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using Kind = exo::rsp::ResumeAction::Kind;
    const std::string_view text = exo::fuzz::as_text(data, size);
    if (const auto request = exo::rsp::Resume::parse(text)) {
        const auto separators = static_cast<std::size_t>(std::count(text.begin(), text.end(), ';'));
        exo::fuzz::require(request->actions.size() == separators + (text.starts_with(';') ? 0 : 1));
        for (const auto& action : request->actions) {
            exo::fuzz::require(action.kind == Kind::range_step ||
                               (action.range_start == 0 && action.range_end == 0));
        }
    }
    for (const char letter : {'c', 'C', 's', 'S'}) {
        std::optional<std::uint64_t> from;
        const auto request = exo::rsp::Resume::parse_old(letter, text, from);
        exo::fuzz::require(request ? request->actions.size() == 1 : !from);
    }
    if (const auto request = exo::rsp::CatchSystemCalls::parse(text)) {
        const auto separators = static_cast<std::size_t>(std::count(text.begin(), text.end(), ';'));
        exo::fuzz::require(request->numbers.size() == separators && request->on == text.starts_with('1'));
    }
    return 0;
}
