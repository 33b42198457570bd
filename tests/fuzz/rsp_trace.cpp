// Requests about tracepoints: what parses is bounded, and its actions are what was written.
#include "fuzz.h"
#include "rsp/trace_requests.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace exo::rsp;
    const std::string_view text = exo::fuzz::as_text(data, size);
    const auto parsed = DefineTracepoint::parse(text);
    if (const auto* request = std::get_if<DefineTracepoint>(&parsed)) {
        exo::fuzz::require(request->number <= 0x7fffffff);
        exo::fuzz::require(!request->head || request->actions.empty());
        std::size_t length = 0;
        for (const auto& action : request->actions) {
            const auto& own = std::visit([](const auto& a) -> const std::string& { return a.text; }, action);
            exo::fuzz::require(own.size() >= 2 && text.find(own) != std::string_view::npos);
            length += own.size();
            if (const auto* memory = std::get_if<CollectMemory>(&action))
                exo::fuzz::require(memory->length <= CollectMemory::most_bytes);
        }
        exo::fuzz::require(length <= size);
    } else {
        exo::fuzz::require(!std::get<std::string>(parsed).empty());
    }
    if (const auto ranges = ReadOnlyRanges::parse(text)) {
        exo::fuzz::require(ranges->ranges.size() <= ReadOnlyRanges::most_ranges);
        for (const auto& range : ranges->ranges) exo::fuzz::require(range.start <= range.end);
    }
    if (const auto source = TracepointSource::parse(text)) exo::fuzz::require(text.ends_with(source->text));
    if (const auto frame = SelectTraceFrame::parse(text))
        exo::fuzz::require(frame->by != SelectTraceFrame::By::pc || frame->first == frame->last);
    static_cast<void>(DefineTraceVariable::parse(text));
    static_cast<void>(TracepointId::parse(text));
    static_cast<void>(ReadTraceBuffer::parse(text));
    return 0;
}
