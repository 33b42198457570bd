// libvirt's C API with owners for its handles and its errors as ours. Compiled only where libvirt is.
#pragma once

#include <libvirt/libvirt.h>

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>

#include "backends/api/result.h"

namespace exo::qemu {

struct CloseConnection {
    void operator()(virConnectPtr connection) const { virConnectClose(connection); }
};
struct FreeDomain {
    void operator()(virDomainPtr domain) const { virDomainFree(domain); }
};
using Connection = std::unique_ptr<virConnect, CloseConnection>;
using Domain = std::unique_ptr<virDomain, FreeDomain>;

// The calling thread's last libvirt error: "CONTEXT: what libvirt says", with the remedy where it is known.
Error libvirt_error(const std::string& context);
// Whether the last error means that the connection itself is dead.
bool connection_lost(virConnectPtr connection);

// `uri` empty: libvirt's own default (LIBVIRT_DEFAULT_URI, qemu:///system for root, else qemu:///session).
Result<Connection> open_connection(const std::string& uri, bool read_only = false);
// The URI as libvirt normalised it.
std::string uri_of(virConnectPtr connection);
Result<Domain> find_domain(virConnectPtr connection, const std::string& name);
std::string uuid_of(virDomainPtr domain);
// QEMU's pid, from where libvirt's qemu driver leaves it: /run/libvirt/qemu of the system daemon,
// $XDG_RUNTIME_DIR/libvirt/qemu/run of a user's own (virQEMUDriverConfigNew). To be verified.
std::optional<pid_t> libvirt_pid(const std::string& uri, const std::string& name);
// "running", "shut off" …: virsh's words.
std::string state_name(int state);

}  // namespace exo::qemu
