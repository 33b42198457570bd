// What run control by pauses asks of a domain: a seam, so that it can be tested without a hypervisor.
#pragma once

#include <memory>
#include <string>

#include "backends/xen/domain.h"
#include "backends/xen/journal.h"

namespace exo::xen {

class Pausing {
public:
    Pausing() = default;
    Pausing(const Pausing&) = delete;
    Pausing& operator=(const Pausing&) = delete;
    virtual ~Pausing() = default;

    [[nodiscard]] virtual std::string name() const = 0;  // the toolstack's
    [[nodiscard]] virtual std::string text() const = 0;  // "Xen domain debian (3)"
    virtual Result<xc_dominfo_t> info() = 0;
    virtual Result<void> pause() = 0;
    virtual Result<void> unpause() = 0;

    // What a dead owner has left is undone; busy if there is one that lives.
    virtual Result<void> begin() = 0;
    // JournalEntry::holds.
    virtual Result<void> write_down(bool holds) = 0;
    virtual void end() = 0;
};

// The real one. `domain` must outlive it.
std::unique_ptr<Pausing> pausing(const Domain& domain, JournalEntry journal);

}  // namespace exo::xen
