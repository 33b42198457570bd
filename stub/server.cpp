#include "stub/server.h"

#include <sys/stat.h>
#include <unistd.h>
#include <csignal>
#include <cstdio>
#include <iostream>

#include <spdlog/spdlog.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/signal_set.hpp>

#include "stub/client.h"
#include "stub/target_thread.h"

namespace exo::stub {
namespace {

using Tcp = asio::ip::tcp;
using Local = asio::local::stream_protocol;
using boost::system::error_code;

class Server {
public:
    Server(Machine& machine, TargetThread& target_thread, const ServerOptions& options)
        : machine_(machine),
          target_thread_(target_thread),
          options_(options),
          signals_(context_, SIGINT, SIGTERM) {}
    ~Server() {
        for (const std::string& path : socket_paths_) ::unlink(path.c_str());
    }
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    Result<void> run();

private:
    Result<void> listen(const TcpEndpoint& endpoint);
    Result<void> listen(const UnixEndpoint& endpoint);
    template <class Acceptor>
    asio::awaitable<void> accept(Acceptor& acceptor);
    void make_client(Connection connection);
    asio::awaitable<void> serve_client();
    void stop();

    Machine& machine_;
    TargetThread& target_thread_;
    const ServerOptions& options_;
    asio::io_context context_{1};
    asio::signal_set signals_;
    std::vector<std::unique_ptr<Tcp::acceptor>> tcp_;
    std::vector<std::unique_ptr<Local::acceptor>> local_;
    std::vector<std::string> socket_paths_;
    std::shared_ptr<Client> client_;
    std::ofstream record_;
    bool stopping_ = false;
};

tl::unexpected<Error> cannot_listen(const std::string& where, const error_code& error) {
    const std::string remedy = error == asio::error::address_in_use ? "; choose another with --listen" : "";
    return fail(error == asio::error::access_denied ? Errc::denied : Errc::busy,
                "cannot listen on " + where + ": " + error.message() + remedy);
}

std::string shown(const Tcp::endpoint& endpoint) {
    const std::string address = endpoint.address().to_string();
    return (endpoint.address().is_v6() ? "[" + address + "]" : address) + ":" +
           std::to_string(endpoint.port());
}

void say_listening(const std::string& where) { std::cout << "listening on " << where << std::endl; }

Result<void> Server::listen(const TcpEndpoint& endpoint) {
    error_code error;
    const std::string where = endpoint.host + ":" + std::to_string(endpoint.port);
    Tcp::resolver resolver{context_};
    const auto found = resolver.resolve(endpoint.host, std::to_string(endpoint.port), error);
    if (error) return cannot_listen(where, error);
    const Tcp::endpoint address = *found.begin();
    if (!address.address().is_loopback()) {
        spdlog::warn("{} can be reached from other machines, and a client owns the guest", where);
    }
    auto acceptor = std::make_unique<Tcp::acceptor>(context_);
    acceptor->open(address.protocol(), error);
    if (!error) acceptor->set_option(Tcp::acceptor::reuse_address{true}, error);
    if (!error) acceptor->bind(address, error);
    if (!error) acceptor->listen(1, error);
    if (error) return cannot_listen(where, error);
    say_listening(shown(acceptor->local_endpoint()));
    tcp_.push_back(std::move(acceptor));
    return {};
}

// A socket that a dead server left behind is taken over; one that somebody answers on is not.
bool is_stale_socket(asio::io_context& context, const std::string& path) {
    struct stat status{};
    if (::lstat(path.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode)) return false;
    Local::socket probe{context};
    error_code error;
    probe.connect(Local::endpoint{path}, error);
    return error == asio::error::connection_refused;
}

Result<void> Server::listen(const UnixEndpoint& endpoint) {
    error_code error;
    const std::string where = "unix:" + endpoint.path;
    if (is_stale_socket(context_, endpoint.path)) ::unlink(endpoint.path.c_str());
    auto acceptor = std::make_unique<Local::acceptor>(context_);
    acceptor->open(Local{}, error);
    // Nobody but this user may connect, from the first moment on: a client owns the guest.
    const mode_t old_mask = ::umask(0177);
    if (!error) acceptor->bind(Local::endpoint{endpoint.path}, error);
    ::umask(old_mask);
    if (error) return cannot_listen(where, error);
    socket_paths_.push_back(endpoint.path);
    acceptor->listen(1, error);
    if (error) return cannot_listen(where, error);
    say_listening(where);
    local_.push_back(std::move(acceptor));
    return {};
}

template <class Acceptor>
asio::awaitable<void> Server::accept(Acceptor& acceptor) {
    while (!stopping_) {
        error_code error;
        auto socket = co_await acceptor.async_accept(asio::redirect_error(asio::use_awaitable, error));
        if (error) {
            if (error != asio::error::operation_aborted)
                spdlog::error("accepting a client: {}", error.message());
            co_return;
        }
        if (client_) {
            spdlog::warn("a second client was turned away: one debugger at a time");
            continue;
        }
        if constexpr (std::is_same_v<Acceptor, Tcp::acceptor>) {
            // A reply that waits for an acknowledgement costs 40 ms.
            socket.set_option(Tcp::no_delay{true}, error);
        }
        make_client(Connection{Connection::Socket{std::move(socket)}});
        co_await serve_client();
    }
}

void Server::make_client(Connection connection) {
    client_ = std::make_shared<Client>(std::move(connection), machine_, target_thread_, options_.session,
                                       context_.get_executor(), record_.is_open() ? &record_ : nullptr);
}

asio::awaitable<void> Server::serve_client() {
    spdlog::info("a debugger has connected");
    const bool guest_gone = co_await client_->run();
    client_.reset();
    spdlog::info("the debugger has gone");
    if (guest_gone) spdlog::warn("the guest is gone");
    if (guest_gone || options_.once) stop();
}

void Server::stop() {
    stopping_ = true;
    signals_.cancel();
    error_code ignored;
    for (auto& acceptor : tcp_) acceptor->close(ignored);
    for (auto& acceptor : local_) acceptor->close(ignored);
    if (client_) client_->stop();
}

Result<void> Server::run() {
    if (!options_.record.empty()) {
        record_.open(options_.record);
        if (!record_) return fail(Errc::denied, "cannot write " + options_.record);
    }
    signals_.async_wait([this](const error_code& error, int) {
        if (!error) stop();
    });
    if (options_.standard_streams) {
        Connection::StandardStreams streams{{context_, ::dup(STDIN_FILENO)},
                                            {context_, ::dup(STDOUT_FILENO)}};
        make_client(Connection{std::move(streams)});
        asio::co_spawn(
            context_,
            [this]() -> asio::awaitable<void> {
                co_await serve_client();
                stop();
            },
            asio::detached);
    }
    for (const Endpoint& endpoint : options_.listen) {
        CHECK_OK(std::visit([this](const auto& e) { return listen(e); }, endpoint));
    }
    for (auto& acceptor : tcp_) asio::co_spawn(context_, accept(*acceptor), asio::detached);
    for (auto& acceptor : local_) asio::co_spawn(context_, accept(*acceptor), asio::detached);
    context_.run();
    return {};
}

}  // namespace

Result<void> serve(Machine& machine, TargetThread& target_thread, const ServerOptions& options) {
    return Server{machine, target_thread, options}.run();
}

}  // namespace exo::stub
