// What is taken for a thread id is the same id when it is printed and parsed again.
#include "rsp/thread_id.h"

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto id = exo::rsp::parse_thread_id(exo::fuzz::as_text(data, size));
    if (!id) return 0;
    std::string printed;
    exo::rsp::append_thread_id(printed, *id, true);
    exo::fuzz::require(exo::rsp::parse_thread_id(printed) == id);
    printed.clear();
    exo::rsp::append_thread_id(printed, *id, false);
    const auto tid_only = exo::rsp::parse_thread_id(printed);
    exo::fuzz::require(tid_only && tid_only->tid == id->tid);
    return 0;
}
