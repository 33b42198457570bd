// A guest of its own for the tests of backends/qemu: a firmware under the machine's QEMU, no kernel
// needed.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "backends/api/memory.h"

namespace exo::test {

// The firmware counts for ever, in real mode, with cs, ds and ss at 0:
//   loop: 7c10 incl counter; 7c15 call func; 7c18 jmp loop
//   func: 7c20 incl calls; 7c25 ret
// The second vCPU is never started.
struct Firmware {
    static constexpr VirtualAddress loop{0x7c10};
    static constexpr VirtualAddress func{0x7c20};
    static constexpr VirtualAddress ret{0x7c25};
    static constexpr VirtualAddress unused{0x7c40};  // a nop that nobody comes by
    static constexpr PhysicalAddress counter{0x6000};
    static constexpr PhysicalAddress calls{0x6004};
};

class QemuGuest {
public:
    // `accelerator` is "tcg" or "kvm"; `more` are further arguments of QEMU. valid() is false if it did not
    // start.
    QemuGuest(const std::string& accelerator, bool shared_memory, const std::vector<std::string>& more = {});
    QemuGuest(const QemuGuest&) = delete;
    QemuGuest& operator=(const QemuGuest&) = delete;
    ~QemuGuest();

    [[nodiscard]] bool valid() const { return pid_ > 0; }
    [[nodiscard]] pid_t pid() const { return pid_; }
    [[nodiscard]] const std::string& directory() const { return directory_; }
    // QEMU listens on two, since each takes one client.
    [[nodiscard]] std::string qmp_socket() const { return directory_ + "/qmp.sock"; }
    [[nodiscard]] std::string second_qmp_socket() const { return directory_ + "/qmp2.sock"; }
    void kill();

private:
    std::string directory_;
    pid_t pid_ = 0;
};

}  // namespace exo::test
