// Which of two backends serves a guest that QEMU runs: KVM's or QEMU's own stub. Facts in, choice and reason
// out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "backends/api/result.h"

namespace exo {

enum class BackendWish : std::uint8_t { automatic, kvm, qemu };  // --backend

struct QemuFacts {
    bool kvm = false;                  // QEMU runs the guest with KVM
    bool running = false;              // the guest is not paused
    std::string state;                 // QEMU's word for that: "paused", "inmigrate"
    std::optional<Error> stub_in_use;  // somebody controls the guest through QEMU's stub
    std::optional<Error> untraceable;  // why QEMU's process cannot be traced
};

struct BackendChoice {
    bool kvm = false;
    std::string reason;  // for it, or against the other

    // One line, for the log and `doctor`.
    [[nodiscard]] std::string text() const;
};

// An error only where `wish` cannot be met.
Result<BackendChoice> choose_backend(BackendWish wish, const QemuFacts& facts);
// What is left when KVM's was chosen and could not be opened.
BackendChoice fall_back(const Error& failure);

}  // namespace exo
