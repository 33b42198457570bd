// g, p, P, G, H and qGetTLSAddr, with and without lldb's suffix.
#include "fuzz.h"
#include "rsp/hex.h"
#include "rsp/requests.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text = exo::fuzz::as_text(data, size);
    std::string_view arguments = text;
    const auto suffix = exo::rsp::cut_thread_suffix(arguments);
    exo::fuzz::require(text.starts_with(arguments));
    exo::fuzz::require((arguments.size() < size) == suffix.has_value());

    const auto read = exo::rsp::ReadRegister::parse(arguments);
    exo::fuzz::require(!read || exo::rsp::parse_hex_number(arguments) == read->number);
    if (const auto write = exo::rsp::WriteRegister::parse(arguments)) {
        exo::fuzz::require(!write->bytes.empty() && 2 * write->bytes.size() + 2 <= arguments.size());
    }
    if (const auto write = exo::rsp::WriteRegisters::parse(arguments)) {
        exo::fuzz::require(!write->bytes.empty() && 2 * write->bytes.size() == arguments.size());
        for (std::size_t i = 0; i < write->bytes.size(); ++i) {
            exo::fuzz::require(write->bytes[i].has_value() == (arguments[2 * i] != 'x'));
        }
    }
    if (const auto local = exo::rsp::ThreadLocal::parse(arguments)) {
        exo::fuzz::require(exo::rsp::parse_thread_id(arguments.substr(0, arguments.find(','))) ==
                           local->thread);
    }
    if (const auto select = exo::rsp::SelectThread::parse(arguments)) {
        exo::fuzz::require(select->operation == 'g' || select->operation == 'c');
        exo::fuzz::require(exo::rsp::parse_thread_id(arguments.substr(1)) == select->thread);
    }
    return 0;
}
