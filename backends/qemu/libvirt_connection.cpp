#include "backends/qemu/libvirt_connection.h"

#include <libvirt/virterror.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <mutex>

#include "backends/host/process.h"

namespace exo::qemu {
namespace {

// libvirt prints each error to stderr unless it is given something else to do, and writes to its sockets so
// that a libvirtd that ended would end this process too, by SIGPIPE.
void set_up_libvirt() {
    static std::once_flag once;
    std::call_once(once, [] {
        virInitialize();
        virSetErrorFunc(nullptr, [](void*, virErrorPtr) {});
        struct sigaction action{};
        if (::sigaction(SIGPIPE, nullptr, &action) == 0 && action.sa_handler == SIG_DFL)
            ::signal(SIGPIPE, SIG_IGN);
    });
}

Error connect_failure(const std::string& where) {
    const auto* last = virGetLastError();
    const std::string reason =
        last != nullptr && last->message != nullptr ? last->message : "no reason given";
    // The socket's errno is only in the text (virNetSocketNewConnectUNIX), as strerror words it.
    const bool socket = reason.find("Failed to connect socket") != std::string::npos;
    if (socket && reason.find("Permission denied") != std::string::npos)
        return {Errc::denied, where + ": permission denied; run as root or join the group libvirt"};
    if (socket &&
        (reason.find("No such file") != std::string::npos || reason.find("refused") != std::string::npos))
        return {Errc::backend, where + ": libvirtd is not running; start it (systemctl start libvirtd)"};
    return libvirt_error(where);
}

}  // namespace

Error libvirt_error(const std::string& context) {
    const auto* last = virGetLastError();
    if (last == nullptr || last->code == VIR_ERR_OK) return {Errc::backend, context + ": no reason given"};
    const std::string reason = last->message != nullptr ? last->message : "no reason given";
    switch (last->code) {
        case VIR_ERR_NO_DOMAIN:
            return {Errc::not_found, context + ": no such domain; `exogdb list` shows them"};
        case VIR_ERR_AUTH_FAILED:
        case VIR_ERR_AUTH_CANCELLED:
        case VIR_ERR_AUTH_UNAVAILABLE:
        case VIR_ERR_ACCESS_DENIED:
        case VIR_ERR_OPERATION_DENIED:
            return {Errc::denied, context + ": " + reason + "; run as root or join the group libvirt"};
        case VIR_ERR_OPERATION_INVALID: return {Errc::backend, context + ": " + reason};
        case VIR_ERR_OPERATION_TIMEOUT: return {Errc::timed_out, context + ": " + reason};
        case VIR_ERR_INVALID_ARG: return {Errc::bad_request, context + ": " + reason};
        default: return {Errc::backend, context + ": " + reason};
    }
}

bool connection_lost(virConnectPtr connection) {
    if (connection == nullptr || virConnectIsAlive(connection) != 1) return true;
    const auto* last = virGetLastError();
    return last != nullptr && (last->domain == VIR_FROM_RPC || last->code == VIR_ERR_RPC);
}

Result<Connection> open_connection(const std::string& uri, bool read_only) {
    set_up_libvirt();
    const char* name = uri.empty() ? nullptr : uri.c_str();
    Connection connection{read_only ? virConnectOpenReadOnly(name) : virConnectOpen(name)};
    if (!connection) return fail(connect_failure(uri.empty() ? "libvirt" : "libvirt at " + uri));
    return connection;
}

std::string uri_of(virConnectPtr connection) {
    const std::unique_ptr<char, decltype(&std::free)> uri{virConnectGetURI(connection), &std::free};
    return uri ? uri.get() : "";
}

Result<Domain> find_domain(virConnectPtr connection, const std::string& name) {
    const auto where = uri_of(connection);  // asked first: each call of libvirt forgets the last error
    Domain domain;
    if (name.size() == VIR_UUID_STRING_BUFLEN - 1 && std::ranges::count(name, '-') == 4)
        domain.reset(virDomainLookupByUUIDString(connection, name.c_str()));
    if (!domain) domain.reset(virDomainLookupByName(connection, name.c_str()));
    if (!domain) return fail(libvirt_error("libvirt domain " + name + " at " + where));
    return domain;
}

std::string uuid_of(virDomainPtr domain) {
    std::array<char, VIR_UUID_STRING_BUFLEN> text{};
    return virDomainGetUUIDString(domain, text.data()) == 0 ? text.data() : "";
}

std::string state_name(int state) {
    switch (state) {
        case VIR_DOMAIN_RUNNING: return "running";
        case VIR_DOMAIN_BLOCKED: return "idle";
        case VIR_DOMAIN_PAUSED: return "paused";
        case VIR_DOMAIN_SHUTDOWN: return "in shutdown";
        case VIR_DOMAIN_SHUTOFF: return "shut off";
        case VIR_DOMAIN_CRASHED: return "crashed";
        case VIR_DOMAIN_PMSUSPENDED: return "pmsuspended";
        default: return "no state";
    }
}

std::optional<pid_t> libvirt_pid(const std::string& uri, const std::string& name) {
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

}  // namespace exo::qemu
