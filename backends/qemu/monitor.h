// QEMU's monitor: QMP commands, and HMP lines through them. Two ways to reach it: libvirt, or QEMU's own QMP
// socket.
#pragma once

#include <sys/types.h>

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "backends/api/result.h"
#include "backends/host/process.h"

namespace exo::qemu {

class Monitor {
public:
    Monitor() = default;
    Monitor(const Monitor&) = delete;
    Monitor& operator=(const Monitor&) = delete;
    virtual ~Monitor() = default;

    // The value of "return". backend when QEMU refuses, with its own words; target_gone when the process that
    // watch() named has ended; timed_out when QEMU does not answer.
    Result<boost::json::value> execute(std::string_view command, boost::json::object arguments = {});
    // What the HMP command printed, lines ended by \n. HMP has no errors, only text.
    Result<std::string> hmp(std::string_view line);
    // As above, with vCPU `cpu_index` as the current one ("gva2gpa", "x").
    Result<std::string> hmp(std::string_view line, std::uint32_t cpu_index);

    // From now on every command fails with target_gone once this process has ended: libvirt would else ask
    // the domain's next QEMU. `process` outlives the monitor.
    void watch(const Process& process) { process_ = &process; }

    // Takes what QEMU has told unasked: each stop and each resume is an event, which QEMU keeps until it is
    // read.
    virtual void drop_events() {}

    // "libvirt domain debian", "QEMU at /run/vm/qmp.sock"
    [[nodiscard]] virtual std::string description() const = 0;
    // QEMU's pid as this way knows it; to be verified.
    [[nodiscard]] virtual std::optional<pid_t> process_hint() const = 0;
    // What must occur in QEMU's command line, empty if there is nothing.
    [[nodiscard]] virtual std::string command_line_mark() const { return {}; }
    // The guest's UUID where it has one.
    [[nodiscard]] virtual std::string uuid() const { return {}; }

protected:
    // One QMP request as text; the answer {"return": …} or {"error": …} as text.
    virtual Result<std::string> exchange(const std::string& request) = 0;

private:
    const Process* process_ = nullptr;
};

// `path` is of a QMP socket that QEMU listens on (-qmp unix:PATH,server=on,wait=off).
Result<std::unique_ptr<Monitor>> open_qmp_monitor(const std::string& path);

#if EXOGDB_WITH_LIBVIRT
// `connect` is a libvirt URI, empty for the default one of root or of the user.
Result<std::unique_ptr<Monitor>> open_libvirt_monitor(const std::string& domain, const std::string& connect);
#endif

}  // namespace exo::qemu
