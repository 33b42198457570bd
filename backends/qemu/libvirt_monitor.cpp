// QEMU's monitor through libvirt's virDomainQemuMonitorCommand.
#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>

#include <charconv>
#include <cstdlib>
#include <utility>

#include "backends/qemu/libvirt_connection.h"
#include "backends/qemu/monitor.h"

namespace exo::qemu {
namespace {

// Where libvirt's qemu driver leaves QEMU's pid: /run/libvirt/qemu of the system daemon,
// $XDG_RUNTIME_DIR/libvirt/qemu/run of a user's own (virQEMUDriverConfigNew).
std::optional<pid_t> pid_from_file(const std::string& uri, const std::string& name) {
    const char* runtime = std::getenv("XDG_RUNTIME_DIR");
    const bool session = uri.find("/session") != std::string::npos;
    if (session && runtime == nullptr) return std::nullopt;
    const std::string directory =
        session ? std::string{runtime} + "/libvirt/qemu/run/" : "/run/libvirt/qemu/";
    const auto text = read_proc_file(directory + name + ".pid");
    pid_t pid = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), pid);
    if (parsed.ec != std::errc{} || pid <= 0) return std::nullopt;
    return pid;
}

class LibvirtMonitor final : public Monitor {
public:
    LibvirtMonitor(std::string uri, Connection connection, Domain domain)
        : uri_(std::move(uri)),
          connection_(std::move(connection)),
          domain_(std::move(domain)),
          name_(virDomainGetName(domain_.get())),
          uuid_(uuid_of(domain_.get())) {}

    [[nodiscard]] std::string description() const override { return "libvirt domain " + name_; }
    [[nodiscard]] std::optional<pid_t> process_hint() const override { return pid_from_file(uri_, name_); }
    [[nodiscard]] std::string command_line_mark() const override { return uuid_; }
    [[nodiscard]] std::string uuid() const override { return uuid_; }

protected:
    Result<std::string> exchange(const std::string& request) override {
        if (!domain_) CHECK_OK(reconnect());
        auto answer = ask(request);
        if (answer || !connection_lost(connection_.get())) return answer;
        // libvirtd was restarted. Commands sent here are idempotent, or their effect is looked at afterwards.
        CHECK_OK(reconnect());
        return ask(request);
    }

private:
    Result<std::string> ask(const std::string& request) {
        char* text = nullptr;
        if (virDomainQemuMonitorCommand(domain_.get(), request.c_str(), &text, 0) != 0)
            return fail(libvirt_error("monitor of libvirt domain " + name_));
        const std::unique_ptr<char, decltype(&std::free)> owner{text, &std::free};
        return std::string{text != nullptr ? text : ""};
    }

    Result<void> reconnect() {
        domain_.reset();
        connection_.reset();
        auto connection = TRY(open_connection(uri_));
        Domain domain{virDomainLookupByUUIDString(connection.get(), uuid_.c_str())};
        if (!domain) return fail(libvirt_error("libvirt domain " + name_));
        connection_ = std::move(connection);
        domain_ = std::move(domain);
        return {};
    }

    std::string uri_;
    Connection connection_;
    Domain domain_;
    std::string name_;
    std::string uuid_;
};

}  // namespace

Result<std::unique_ptr<Monitor>> open_libvirt_monitor(const std::string& name, const std::string& connect) {
    auto connection = TRY(open_connection(connect));
    auto domain = TRY(find_domain(connection.get(), name));
    int state = 0;
    int reason = 0;
    if (virDomainGetState(domain.get(), &state, &reason, 0) != 0)
        return fail(libvirt_error("libvirt domain " + name));
    if (virDomainIsActive(domain.get()) != 1) {
        return fail(Errc::not_found, "libvirt domain " + name + " is " + state_name(state) +
                                         "; start it (virsh start " + name + ")");
    }
    auto uri = uri_of(connection.get());
    return std::make_unique<LibvirtMonitor>(std::move(uri), std::move(connection), std::move(domain));
}

}  // namespace exo::qemu
