// A small process that outlives a killed server and undoes what that left in the guest.
#pragma once

#include <sys/types.h>
#include <string>

#include "backends/api/result.h"
#include "backends/registry.h"

namespace exo::stub {

// Starts the guardian; call before any thread is started. It holds the read end of a pipe whose other end
// dies with this process, however it dies, and then does what `exogdb recover` does. A pipe and not a signal:
// it works after kill -9 too, and for a guardian that is no child of init's. It is told the name that the
// user gave, and not what was opened: that could come too late, or never, where the journals are written
// before anything is done. KVM's are found by this name alone, whether libvirt answers or not.
class Guardian {
public:
    static Result<Guardian> start(const TargetUri& target, const OpenOptions& options);
    Guardian(Guardian&& other) noexcept;
    Guardian& operator=(Guardian&&) = delete;
    // All is well: the guardian ends without a deed.
    ~Guardian();

private:
    explicit Guardian(int pipe, pid_t pid) : pipe_(pipe), pid_(pid) {}
    int pipe_ = -1;
    pid_t pid_ = -1;
};

// The guardian's own main: waits on stdin for the farewell byte or the end of the server.
int run_guardian(const TargetUri& target, const OpenOptions& options);

}  // namespace exo::stub
