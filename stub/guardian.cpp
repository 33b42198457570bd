#include "stub/guardian.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>

#include <spdlog/spdlog.h>

namespace exo::stub {
namespace {

constexpr char farewell = 'q';
constexpr std::chrono::seconds restoring_limit{30};
constexpr std::chrono::milliseconds between_attempts{2};

// Only async-signal-safe calls: between fork and exec.
[[noreturn]] void become_guardian(int read_end, char* const* arguments) {
    ::setsid();  // a ^C in the terminal is for the server
    ::dup2(read_end, STDIN_FILENO);
    const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null >= 0) ::dup2(null, STDOUT_FILENO);
    ::execv("/proc/self/exe", arguments);
    ::_exit(127);
}

}  // namespace

Result<Guardian> Guardian::start(const TargetUri& target, const OpenOptions& options) {
    std::array<int, 2> ends{};
    // O_CLOEXEC on both: the write end must be this process' alone, or its death goes unnoticed.
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
        return fail(Errc::backend, std::string{"cannot start the guardian: "} + std::strerror(errno));
    }
    std::string uri = target.text();
    std::string connect = options.connect;
    std::string name = "exogdb";
    std::string command = "guard";
    std::string flag = "--connect";
    std::vector<char*> arguments{name.data(), command.data(), uri.data()};
    if (!connect.empty()) arguments.insert(arguments.end(), {flag.data(), connect.data()});
    arguments.push_back(nullptr);
    const pid_t pid = ::fork();
    if (pid == 0) become_guardian(ends[0], arguments.data());
    ::close(ends[0]);
    if (pid < 0) {
        ::close(ends[1]);
        return fail(Errc::backend, std::string{"cannot start the guardian: "} + std::strerror(errno));
    }
    return Guardian{ends[1], pid};
}

Guardian::Guardian(Guardian&& other) noexcept
    : pipe_(std::exchange(other.pipe_, -1)), pid_(std::exchange(other.pid_, -1)) {}

Guardian::~Guardian() {
    if (pipe_ < 0) return;
    std::signal(SIGPIPE, SIG_IGN);  // it may have been killed
    const auto written = ::write(pipe_, &farewell, 1);
    ::close(pipe_);
    if (written == 1) ::waitpid(pid_, nullptr, 0);
}

int run_guardian(const TargetUri& target, const OpenOptions& options) {
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) std::signal(signal, SIG_IGN);
    char byte = 0;
    ssize_t count = 0;
    do {
        count = ::read(STDIN_FILENO, &byte, 1);
    } while (count < 0 && errno == EINTR);
    if (count == 1 && byte == farewell) return 0;
    // The pipe may be closed before the process is seen to have ended, since it has several threads; and on a
    // machine that has more to do a thread of the VMM takes its time.
    const auto may_pass = [](const Error& error) {
        return error.code == Errc::busy || error.code == Errc::timed_out;
    };
    const auto deadline = std::chrono::steady_clock::now() + restoring_limit;
    auto report = recover_target(target, options);
    while (!report && may_pass(report.error()) && std::chrono::steady_clock::now() < deadline) {
        std::this_thread::sleep_for(between_attempts);
        report = recover_target(target, options);
    }
    if (!report)
        spdlog::error("restoring {} after a killed server: {}", target.text(), report.error().message);
    return report ? 0 : 1;
}

}  // namespace exo::stub
