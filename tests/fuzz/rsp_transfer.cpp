// qXfer: the parts are parts of the packet; slices put together are the object.
#include "fuzz.h"
#include "rsp/requests.h"
#include "rsp/stop_reply.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text = exo::fuzz::as_text(data, size);
    const auto request = exo::rsp::Transfer::parse(text);
    if (!request) return 0;
    exo::fuzz::require(request->length > 0);
    exo::fuzz::require(
        text.starts_with(std::string(request->object) + ":read:" + std::string(request->annex) + ":"));

    const std::string asked = exo::rsp::xfer_slice(text, request->offset, request->length);
    exo::fuzz::require(asked.size() - 1 <= request->length &&
                       text.find(asked.substr(1)) != std::string_view::npos);
    std::string object;
    for (bool more = true; more;) {
        const std::string slice = exo::rsp::xfer_slice(text, object.size(), request->length);
        more = slice.front() == 'm';
        exo::fuzz::require(!more || slice.size() == request->length + 1);
        object += slice.substr(1);
    }
    exo::fuzz::require(object == text);
    return 0;
}
