#include "stub/reply.h"

#include <array>
#include <cerrno>

#include "rsp/hex.h"

namespace exo::stub {
namespace {

int number_of(Errc code) {
    switch (code) {
        case Errc::bad_request: return EINVAL;
        case Errc::bad_address: return EFAULT;
        case Errc::no_such_thread: return ESRCH;
        case Errc::denied: return EACCES;
        case Errc::no_free_slot: return ENOSPC;
        case Errc::timed_out: return ETIMEDOUT;
        case Errc::busy: return EBUSY;
        case Errc::not_found: return ENOENT;
        case Errc::bad_data: return EIO;
        case Errc::unsupported: return ENOSYS;
        case Errc::backend: return EIO;
        case Errc::target_gone: return ENODEV;
    }
    return EIO;
}

}  // namespace

std::vector<std::string> console_output(std::string_view text, std::size_t packet_size) {
    std::vector<std::string> packets;
    const std::size_t piece = packet_size / 4;
    for (std::size_t at = 0; at < text.size(); at += piece) {
        packets.push_back("O" + rsp::to_hex(text.substr(at, piece)));
    }
    return packets;
}

std::string render_error(const Error& error, ErrorStyle style) {
    // lldb takes E.text for no error at all, so its own form goes before.
    if (style.text_allowed && !style.lldb_strings && !error.message.empty()) return "E." + error.message;
    constexpr std::string_view digits = "0123456789abcdef";
    const auto number = static_cast<unsigned>(number_of(error.code));
    std::string reply{'E', digits[(number >> 4U) & 0xfU], digits[number & 0xfU]};
    if (style.lldb_strings && !error.message.empty()) {
        reply += ';';
        rsp::append_hex(reply, std::string_view{error.message});
    }
    return reply;
}

}  // namespace exo::stub
