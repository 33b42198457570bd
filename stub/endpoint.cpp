#include <charconv>

#include "stub/server.h"

namespace exo::stub {

Result<Endpoint> parse_endpoint(const std::string& text) {
    constexpr std::string_view unix_prefix = "unix:";
    // sun_path of sockaddr_un(7), with its NUL.
    constexpr std::size_t longest_path = 107;
    if (text.starts_with(unix_prefix)) {
        std::string path = text.substr(unix_prefix.size());
        if (path.empty() || path.size() > longest_path) {
            return fail(Errc::bad_request, "cannot listen on '" + text + "': a socket's path has 1 to " +
                                               std::to_string(longest_path) + " bytes");
        }
        return UnixEndpoint{std::move(path)};
    }
    const std::size_t colon = text.rfind(':');
    std::uint16_t port = 0;
    const std::string digits = colon == std::string::npos ? "" : text.substr(colon + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size()) {
        return fail(Errc::bad_request,
                    "cannot listen on '" + text + "': write HOST:PORT, :PORT or unix:PATH");
    }
    std::string host = text.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    if (host.empty() || host == "localhost") host = "127.0.0.1";
    return TcpEndpoint{std::move(host), port};
}

}  // namespace exo::stub
