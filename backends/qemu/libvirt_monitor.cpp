// QEMU's monitor through libvirt's virDomainQemuMonitorCommand.
#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>

#include <cstdlib>
#include <utility>

#include "backends/qemu/libvirt_connection.h"
#include "backends/qemu/monitor.h"

namespace exo::qemu {
namespace {

class LibvirtMonitor final : public Monitor {
public:
    LibvirtMonitor(std::string uri, Connection connection, Domain domain)
        : uri_(std::move(uri)),
          connection_(std::move(connection)),
          domain_(std::move(domain)),
          name_(virDomainGetName(domain_.get())),
          uuid_(uuid_of(domain_.get())) {}

    [[nodiscard]] std::string description() const override { return "libvirt domain " + name_; }
    [[nodiscard]] std::optional<pid_t> process_hint() const override { return libvirt_pid(uri_, name_); }
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
