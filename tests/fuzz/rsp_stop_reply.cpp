// A stop reply of any values is made of key:value; pairs, and its thread can be parsed again.
#include "rsp/stop_reply.h"

#include "fuzz.h"
#include "rsp/hex.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using exo::rsp::StopReply;
    exo::fuzz::Input input(data, size);
    StopReply reply;
    reply.kind = static_cast<StopReply::Kind>(input.byte() % 3);
    reply.signal = static_cast<exo::rsp::Signal>(input.byte());
    reply.reason = static_cast<StopReply::Reason>(input.byte());  // whatever: it must not be asserted on
    reply.watch_address = input.number();
    reply.thread = {static_cast<std::int64_t>(input.number()), static_cast<std::int64_t>(input.number())};
    if (input.byte() % 2 != 0) reply.core = static_cast<std::uint32_t>(input.number(4));
    reply.exit_status = input.byte();
    while (!input.rest().empty()) {
        const auto number = static_cast<std::uint16_t>(input.number(2));
        reply.registers.emplace_back(number, exo::rsp::to_hex(input.text(input.byte())));
    }
    for (const bool multiprocess : {false, true}) {
        const std::string text = exo::rsp::to_string(reply, multiprocess);
        if (reply.kind == StopReply::Kind::no_resumed) exo::fuzz::require(text == "N");
        if (reply.kind == StopReply::Kind::exited)
            exo::fuzz::require(text.starts_with('W') && text.size() >= 3);
        if (reply.kind != StopReply::Kind::stopped) continue;
        exo::fuzz::require(text.starts_with('T') && (text.size() == 3 || text.ends_with(';')));
        exo::fuzz::require(std::count(text.begin(), text.end(), ':') ==
                           std::count(text.begin(), text.end(), ';'));
        if (reply.thread.tid <= 0) continue;
        const std::string_view thread = std::string_view(text).substr(text.find("thread:") + 7);
        const auto id = exo::rsp::parse_thread_id(thread.substr(0, thread.find(';')));
        exo::fuzz::require(!id || id->tid == reply.thread.tid);
        exo::fuzz::require(id || reply.thread.pid < 0);  // one thread of all processes is no id
    }
    return 0;
}
