// Reads top to bottom: options, log, command.
#include <malloc.h>

#include <csignal>
#include <memory>

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include "backends/kvm/child_events.h"
#include "stub/commands.h"
#include "stub/guardian.h"

namespace {

// stdout belongs to output, and to the debugger under --stdio.
void set_up_log(const std::string& level) {
    auto logger =
        std::make_shared<spdlog::logger>("exogdb", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    logger->set_pattern("exogdb: %^%l%$: %v");
    spdlog::set_default_logger(std::move(logger));
    spdlog::set_level(spdlog::level::from_str(level));
}

// A packet's buffers are as large as the packet: given back and mapped anew each time, their page faults cost
// more than what is copied into them.
void keep_large_buffers() {
    constexpr int largest_buffer = 4 << 20;  // some packets of the default size
    ::mallopt(M_MMAP_THRESHOLD, largest_buffer);
    ::mallopt(M_TRIM_THRESHOLD, 4 * largest_buffer);
}

int run_guard(const exo::stub::Options& options) {
    const auto uri = exo::TargetUri::parse(options.target);
    return uri ? exo::stub::run_guardian(*uri, options.open) : exo::stub::exit_usage;
}

}  // namespace

int main(int argc, char** argv) {
    using exo::stub::Command;
    exo::stub::Options options;
    if (const int status = exo::stub::parse_options(argc, argv, options); status >= 0) return status;
    exo::kvm::leave_children_to_others();
    set_up_log(options.log_level);
    keep_large_buffers();
    std::signal(SIGPIPE, SIG_IGN);  // a client or a hypervisor that went away is an error value
    switch (options.command) {
        case Command::list: return exo::stub::run_list(options);
        case Command::serve: return exo::stub::run_serve(options);
        case Command::info: return exo::stub::run_info(options);
        case Command::ps: return exo::stub::run_ps(options);
        case Command::dmesg: return exo::stub::run_dmesg(options);
        case Command::doctor: return exo::stub::run_doctor(options);
        case Command::recover: return exo::stub::run_recover(options);
        case Command::symbols: return exo::stub::run_symbols(options);
        case Command::guard: return run_guard(options);
        case Command::none: break;
    }
    return exo::stub::exit_usage;
}
