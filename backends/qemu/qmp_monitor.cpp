// QMP over QEMU's own unix socket (docs/interop/qmp-spec in QEMU): one JSON object a line, a greeting first,
// then qmp_capabilities; events come in between the answers.
#include <sys/socket.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <utility>

#include "backends/qemu/monitor.h"
#include "backends/qemu/unix_socket.h"

namespace exo::qemu {
namespace json = boost::json;
namespace {

using namespace std::chrono_literals;

constexpr auto greeting_limit = 3s;  // a QMP socket that has a client already accepts, and then is silent
constexpr auto answer_limit = 15s;
constexpr std::size_t line_limit = 64U << 20U;

class QmpMonitor final : public Monitor {
public:
    QmpMonitor(std::string path, FileDescriptor socket)
        : path_(std::move(path)), socket_(std::move(socket)) {}

    Result<void> negotiate() {
        const auto greeting = read_line(Clock::now() + greeting_limit);
        if (!greeting) {
            if (greeting.error().code != Errc::timed_out) return fail(greeting.error());
            return fail(Errc::busy, "QMP socket " + path_ +
                                        " is in use: it takes one client at a time; give QEMU a second -qmp");
        }
        if (greeting->find("\"QMP\"") == std::string::npos)
            return fail(Errc::not_found, path_ + " is not a QMP socket");
        TRY(execute("qmp_capabilities"));
        return {};
    }

    [[nodiscard]] std::string description() const override { return "QEMU at " + path_; }

    [[nodiscard]] std::optional<pid_t> process_hint() const override {
        ucred peer{};
        socklen_t size = sizeof peer;
        if (::getsockopt(socket_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.pid <= 0)
            return std::nullopt;
        return peer.pid;
    }

    void drop_events() override {
        while (read_available(socket_.get(), input_, Clock::time_point{}).value_or(false))
            input_.erase(0, input_.rfind('\n') + 1);
    }

protected:
    Result<std::string> exchange(const std::string& request) override {
        boost::system::error_code error;
        auto object = json::parse(request, error);
        const auto id = ++last_id_;
        object.as_object()["id"] = id;
        const auto deadline = Clock::now() + answer_limit;
        CHECK_OK(write_all(socket_.get(), json::serialize(object) + "\n", deadline));
        for (;;) {
            auto line = TRY(read_line(deadline));
            const auto parsed = json::parse(line, error);
            const auto* answer = error ? nullptr : parsed.if_object();
            if (answer == nullptr)
                return fail(Errc::backend, "QMP socket " + path_ + " sends what is not JSON");
            if (answer->contains("event")) continue;
            // An answer to an earlier command that timed out is dropped.
            if (const auto* answered = answer->if_contains("id"); answered && *answered != json::value(id))
                continue;
            return line;
        }
    }

private:
    Result<std::string> read_line(Clock::time_point deadline) {
        for (;;) {
            if (const auto end = input_.find('\n'); end != std::string::npos) {
                auto line = input_.substr(0, end);
                input_.erase(0, end + 1);
                return line;
            }
            if (input_.size() > line_limit)
                return fail(Errc::backend, "QMP socket " + path_ + " sends no line end");
            if (!TRY(read_available(socket_.get(), input_, deadline)))
                return fail(Errc::timed_out, "QEMU does not answer on its QMP socket " + path_);
        }
    }

    std::string path_;
    FileDescriptor socket_;
    std::string input_;
    std::int64_t last_id_ = 0;
};

}  // namespace

Result<std::unique_ptr<Monitor>> open_qmp_monitor(const std::string& path) {
    auto monitor = std::make_unique<QmpMonitor>(path, TRY(connect_unix(path)));
    CHECK_OK(monitor->negotiate());
    return monitor;
}

}  // namespace exo::qemu
