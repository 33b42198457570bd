#include "stub/server.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <type_traits>
#include <utility>

#include <spdlog/spdlog.h>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include "stub/client.h"
#include "stub/program_wait.h"
#include "stub/target_thread.h"

namespace exo::stub {
namespace {

using Tcp = asio::ip::tcp;
using Local = asio::local::stream_protocol;
using boost::system::error_code;

// How long a second debugger waits for the first to be gone; gdb gives up after three times 2 seconds.
constexpr std::chrono::seconds patience{2};

class Server {
public:
    Server(Machine& machine, TargetThread& target_thread, const ServerOptions& options)
        : machine_(machine),
          target_thread_(target_thread),
          options_(options),
          session_(options.session),
          signals_(context_, SIGINT, SIGTERM) {}
    ~Server() {
        for (const std::string& path : socket_paths_) ::unlink(path.c_str());
    }
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    Result<void> run();

private:
    Result<void> bind(const TcpEndpoint& endpoint);
    Result<void> bind(const UnixEndpoint& endpoint);
    Result<void> listen();
    Result<bool> wait_for_program();
    template <class Acceptor>
    void accept(Acceptor& acceptor);
    void connected(Connection connection);
    void serve_client(Connection connection);
    void client_ended(const Client* client, bool guest_gone);
    void stop();

    Machine& machine_;
    TargetThread& target_thread_;
    const ServerOptions& options_;
    SessionOptions session_;
    asio::io_context context_{1};
    asio::signal_set signals_;
    std::vector<std::unique_ptr<Tcp::acceptor>> tcp_;
    std::vector<std::unique_ptr<Local::acceptor>> local_;
    std::vector<std::string> socket_paths_;
    std::optional<ProgramWait> wait_;
    std::shared_ptr<Client> client_;
    std::shared_ptr<Client> platform_;  // lldb's, beside it (handlers/platform.cpp)
    std::optional<Connection> next_;    // connected while there is a client, which may be about to go
    asio::steady_timer patience_{context_};
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

Result<void> Server::bind(const TcpEndpoint& endpoint) {
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
    if (error) return cannot_listen(where, error);
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

Result<void> Server::bind(const UnixEndpoint& endpoint) {
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
    local_.push_back(std::move(acceptor));
    return {};
}

// Until then a client is refused.
Result<void> Server::listen() {
    error_code error;
    for (auto& acceptor : tcp_) {
        const std::string where = shown(acceptor->local_endpoint());
        acceptor->listen(1, error);
        if (error) return cannot_listen(where, error);
        say_listening(where);
        if (session_.port == 0) session_.port = acceptor->local_endpoint().port();
        accept(*acceptor);
    }
    for (auto& acceptor : local_) {
        const std::string where = "unix:" + acceptor->local_endpoint().path();
        acceptor->listen(1, error);
        if (error) return cannot_listen(where, error);
        say_listening(where);
        accept(*acceptor);
    }
    return {};
}

// False: a signal came before.
Result<bool> Server::wait_for_program() {
    wait_.emplace(machine_, options_.wait_for,
                  [](std::string_view line) { std::cerr << "exogdb: " << line << std::endl; });
    std::optional<Result<std::optional<std::int64_t>>> begun;
    target_thread_.run(
        context_.get_executor(), [this] { return wait_->run(); },
        [&begun](const auto& result) { begun = result; });
    while (!begun) context_.run_one();
    wait_.reset();
    const auto process = TRY(std::move(*begun));
    if (!process) return false;
    session_.process = std::to_string(*process);
    std::cerr << "exogdb: " << options_.wait_for << " begins as process " << *process
              << ": the guest stands until a client has it go on" << std::endl;
    return true;
}

// Room for a whole reply of memory, so that none of it waits for the client to make room. The kernel counts
// what it adds to the bytes, and doubles what it is asked for (socket(7)). TCP does this by itself.
void keep_replies_moving(int socket) {
    constexpr int room = 2 << 20;
    if (::setsockopt(socket, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room) == 0) return;
    ::setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);  // as much as net.core.wmem_max allows
}

template <class Acceptor>
void Server::accept(Acceptor& acceptor) {
    acceptor.async_accept([this, &acceptor](error_code error, auto socket) {
        if (error == asio::error::operation_aborted) return;
        if (error) {
            spdlog::error("accepting a client: {}", error.message());
            return;
        }
        if constexpr (std::is_same_v<Acceptor, Tcp::acceptor>) {
            // A reply that waits for an acknowledgement costs 40 ms.
            socket.set_option(Tcp::no_delay{true}, error);
        } else {
            keep_replies_moving(socket.native_handle());
        }
        connected(Connection{Connection::Socket{std::move(socket)}});
        accept(acceptor);
    });
}

// A debugger that is started anew at once, or after its predecessor was killed, finds that one's end still
// under way.
void Server::connected(Connection connection) {
    if (stopping_) return;
    if (client_ && client_->is_platform() && !platform_) platform_ = std::move(client_);
    if (!client_) return serve_client(std::move(connection));
    if (next_) return;
    next_.emplace(std::move(connection));
    patience_.expires_after(patience);
    patience_.async_wait([this](const error_code& cancelled) {
        if (cancelled || !next_) return;
        spdlog::warn("a second debugger was turned away: one at a time");
        next_.reset();
    });
}

void Server::serve_client(Connection connection) {
    spdlog::info("a debugger has connected");
    client_ = std::make_shared<Client>(std::move(connection), machine_, target_thread_, session_,
                                       context_.get_executor(), record_.is_open() ? &record_ : nullptr);
    client_->start([this, client = client_.get()](bool guest_gone) { client_ended(client, guest_gone); });
}

void Server::client_ended(const Client* client, bool guest_gone) {
    if (client == platform_.get()) return platform_.reset();
    client_.reset();
    spdlog::info("the debugger has gone");
    if (guest_gone) spdlog::warn("the guest is gone");
    if (guest_gone || options_.once || options_.standard_streams) return stop();
    if (!next_) return;
    patience_.cancel();
    serve_client(*std::exchange(next_, std::nullopt));
}

void Server::stop() {
    stopping_ = true;
    if (wait_) wait_->stop();
    signals_.cancel();
    error_code ignored;
    for (auto& acceptor : tcp_) acceptor->close(ignored);
    for (auto& acceptor : local_) acceptor->close(ignored);
    patience_.cancel();
    next_.reset();
    if (client_) client_->stop();
    if (platform_) platform_->stop();
}

Result<void> Server::run() {
    if (!options_.record.empty()) {
        record_.open(options_.record);
        if (!record_) return fail(Errc::denied, "cannot write " + options_.record);
    }
    signals_.async_wait([this](const error_code& error, int) {
        if (!error) stop();
    });
    for (const Endpoint& endpoint : options_.listen) {
        CHECK_OK(std::visit([this](const auto& e) { return bind(e); }, endpoint));
    }
    if (!options_.wait_for.empty() && !TRY(wait_for_program())) return {};
    CHECK_OK(listen());
    if (options_.standard_streams) {
        serve_client(Connection{
            Connection::StandardStreams{{context_, ::dup(STDIN_FILENO)}, {context_, ::dup(STDOUT_FILENO)}}});
    }
    context_.run();
    return {};
}

}  // namespace

Result<void> serve(Machine& machine, TargetThread& target_thread, const ServerOptions& options) {
    return Server{machine, target_thread, options}.run();
}

}  // namespace exo::stub
