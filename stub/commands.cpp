#include "stub/commands.h"

#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>

#include <spdlog/spdlog.h>
#include <unistd.h>
#include <boost/json.hpp>

#include "stub/guardian.h"
#include "stub/log_text.h"
#include "stub/tables.h"
#include "stub/target_thread.h"

namespace exo::stub {
namespace {

namespace json = boost::json;

int failed(const Error& error) {
    std::cerr << "exogdb: " << error.message << '\n';
    return error.code == Errc::bad_request ? exit_usage : exit_failed;
}

// What takes long is told on stderr, where somebody watches.
os::Progress progress() {
    if (::isatty(STDERR_FILENO) == 0) return {};
    return [](std::string_view what) { std::cerr << "exogdb: " << what << '\n'; };
}

Result<std::unique_ptr<Machine>> open_machine(const Options& options) {
    const TargetUri uri = TRY(TargetUri::parse(options.target));
    std::optional<UserProgram> program;
    if (!options.vmlinux.empty()) program = TRY(open_user_program(options.vmlinux));
    OpenOptions open = options.open;
    open.tell = [](std::string_view line) { spdlog::info("{}", line); };
    auto machine = std::make_unique<Machine>(TRY(open_target(uri, open)), options.os, progress());
    CHECK_OK(machine->look());
    if (program) {
        // Where no kernel is there yet, it is looked at when one is.
        if (machine->os() != nullptr) CHECK_OK(check_is_of_guest(*program, *machine->os()));
        machine->set_program(std::move(*program));
    }
    return machine;
}

std::string no_os(Machine& machine) {
    const auto& steps = machine.probe_failure().steps;
    return "no operating system was recognised" + (steps.empty() ? "" : ": " + steps.back()) +
           "; `exogdb info` says what was tried";
}

std::string column(std::string text, std::size_t width) { return pad(std::move(text), width) + ' '; }

void print_guests(const std::vector<GuestSummary>& guests) {
    std::cout << column("TARGET", 32) << column("STATE", 12) << column("ACCEL", 6) << column("VCPUS", 6)
              << "PID\n";
    for (const GuestSummary& guest : guests) {
        std::cout << column(guest.target, 32) << column(guest.state, 12) << column(guest.accelerator, 6)
                  << column(std::to_string(guest.vcpus), 6) << (guest.pid ? std::to_string(*guest.pid) : "-")
                  << '\n';
    }
}

void print_guests_json(const std::vector<GuestSummary>& guests) {
    json::array array;
    for (const GuestSummary& guest : guests) {
        json::object object{{"target", guest.target},
                            {"name", guest.name},
                            {"state", guest.state},
                            {"accelerator", guest.accelerator},
                            {"vcpus", guest.vcpus}};
        object["pid"] = guest.pid ? json::value(*guest.pid) : json::value(nullptr);
        array.push_back(std::move(object));
    }
    std::cout << json::serialize(array) << '\n';
}

// Written beside `path` and put in its place when whole, so that a debugger that has the old one mapped keeps
// it, and nobody sees half of the new one.
class OutputFile final : public os::ByteSink {
public:
    explicit OutputFile(std::string path)
        : path_(std::move(path)),
          draft_(path_ + ".part"),
          stream_(draft_, std::ios::binary | std::ios::trunc) {}
    ~OutputFile() override {
        std::error_code ignored;
        if (!draft_.empty()) std::filesystem::remove(draft_, ignored);
    }
    OutputFile(const OutputFile&) = delete;
    OutputFile& operator=(const OutputFile&) = delete;

    Result<void> write(ConstBytes bytes) override {
        const auto text = as_text(bytes);
        if (!stream_.write(text.data(), static_cast<std::streamsize>(text.size()))) return cannot_write();
        return {};
    }
    Result<void> keep() {
        stream_.close();
        std::error_code error;
        if (stream_) std::filesystem::rename(draft_, path_, error);
        if (!stream_ || error) return cannot_write();
        draft_.clear();
        return {};
    }

private:
    [[nodiscard]] tl::unexpected<Error> cannot_write() const {
        return fail(Errc::backend, "cannot write " + path_ + "; is its folder there, writable and not full?");
    }

    std::string path_;
    std::string draft_;
    std::ofstream stream_;
};

Result<std::vector<std::string>> copy_program(Machine& machine, os::ByteSink& sink) {
    const auto program = TRY(machine.symbol_file());
    std::vector<std::byte> piece(1U << 20U);
    for (std::uint64_t at = 0; at < program->content.size();) {
        const auto count = TRY(program->content.read(at, piece));
        CHECK_OK(sink.write(ConstBytes{piece}.first(count)));
        at += count;
    }
    return std::vector<std::string>{};
}

}  // namespace

int run_list(const Options& options) {
    std::vector<Error> errors;
    const auto guests = list_targets(options.open, errors);
    if (options.json) {
        print_guests_json(guests);
    } else {
        print_guests(guests);
    }
    for (const Error& error : errors) std::cerr << "exogdb: " << error.message << '\n';
    return errors.empty() || !guests.empty() ? exit_done : exit_failed;
}

int run_serve(const Options& options) {
    const auto uri = TargetUri::parse(options.target);
    if (!uri) return failed(uri.error());
    auto guardian = Guardian::start(*uri, options.open);  // before any thread is started
    if (!guardian) return failed(guardian.error());
    TargetThread target_thread;
    auto machine = target_thread.call([&] { return open_machine(options); });
    if (!machine) return failed(machine.error());
    target_thread.call([&] { (*machine)->target().memory().release(); });
    const auto served = serve(**machine, target_thread, options.server);
    // The target is closed by the thread that opened it, and before the guardian is told that all is well.
    target_thread.call([&] { machine->reset(); });
    return served ? exit_done : failed(served.error());
}

int run_info(const Options& options) {
    const auto machine = open_machine(options);
    if (!machine) return failed(machine.error());
    std::cout << (options.json ? info_json(**machine) : info_text(**machine));
    return exit_done;
}

int run_ps(const Options& options) {
    const auto machine = open_machine(options);
    if (!machine) return failed(machine.error());
    const auto* os = (*machine)->os();
    if (os == nullptr) return failed({Errc::not_found, no_os(**machine)});
    std::cout << (options.json ? tasks_json(*os) : tasks_table(*os));
    return exit_done;
}

int run_dmesg(const Options& options) {
    const auto machine = open_machine(options);
    if (!machine) return failed(machine.error());
    auto* os = (*machine)->os();
    if (os == nullptr) return failed({Errc::not_found, no_os(**machine)});
    const auto log = os->kernel_log();
    if (!log) return failed(log.error());
    if (options.json) {
        std::cout << log_json(*log);
        return exit_done;
    }
    std::cout << log_text(log->records);
    for (const std::string& line : log->missing) std::cerr << "exogdb: missing: " << line << '\n';
    return exit_done;
}

int run_doctor(const Options& options) {
    const auto uri = TargetUri::parse(options.target);
    if (!uri) return failed(uri.error());
    bool all_ok = true;
    json::array array;
    for (const Check& check : diagnose_target(*uri, options.open)) {
        all_ok = all_ok && check.ok;
        if (options.json) {
            array.push_back(json::object{
                {"check", check.name}, {"ok", check.ok}, {"detail", check.detail}, {"remedy", check.remedy}});
            continue;
        }
        std::cout << (check.ok ? "ok    " : "FAIL  ") << column(check.name, 24) << check.detail << '\n';
        if (!check.ok && !check.remedy.empty())
            std::cout << "      " << column("", 24) << "remedy: " << check.remedy << '\n';
    }
    if (options.json) std::cout << json::serialize(array) << '\n';
    return all_ok ? exit_done : exit_failed;
}

int run_symbols(const Options& options) {
    const auto machine = open_machine(options);
    if (!machine) return failed(machine.error());
    auto* os = (*machine)->os();
    if (os == nullptr) return failed({Errc::not_found, no_os(**machine)});
    OutputFile file{options.output};
    const auto problems =
        options.vmlinux.empty() ? os->write_symbol_file(file, 0) : copy_program(**machine, file);
    if (!problems) return failed(problems.error());
    if (auto kept = file.keep(); !kept) return failed(kept.error());
    for (const std::string& problem : *problems) std::cerr << "exogdb: " << problem << '\n';
    return exit_done;
}

int run_recover(const Options& options) {
    const auto uri = TargetUri::parse(options.target);
    if (!uri) return failed(uri.error());
    const auto report = recover_target(*uri, options.open);
    if (!report) return failed(report.error());
    if (options.json) {
        json::array actions;
        for (const std::string& action : report->actions) actions.push_back(json::string{action});
        std::cout << json::serialize(json::object{{"actions", std::move(actions)}}) << '\n';
        return exit_done;
    }
    for (const std::string& action : report->actions) std::cout << action << '\n';
    if (report->actions.empty()) std::cout << "nothing to undo\n";
    return exit_done;
}

}  // namespace exo::stub
