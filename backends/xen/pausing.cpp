#include "backends/xen/pausing.h"

#include <unistd.h>

#include <utility>

#include "backends/host/process.h"
#include "backends/xen/recover.h"

namespace exo::xen {
namespace {

class DomainPausing final : public Pausing {
public:
    DomainPausing(const Domain& domain, JournalEntry journal)
        : domain_(domain), journal_(std::move(journal)) {}

    [[nodiscard]] std::string name() const override { return domain_.name(); }
    [[nodiscard]] std::string text() const override { return domain_.text(); }
    Result<xc_dominfo_t> info() override { return domain_.info(); }
    Result<void> pause() override { return domain_.pause(); }
    Result<void> unpause() override { return domain_.unpause(); }

    Result<void> begin() override {
        CHECK_OK(recover_stale(domain_));
        journal_.owner_pid = ::getpid();
        journal_.owner_start = start_time_of(::getpid()).value_or(0);
        return {};
    }
    Result<void> write_down(bool holds) override {
        journal_.holds = holds;
        return write_journal(journal_);
    }
    void end() override { remove_journal(journal_); }

private:
    const Domain& domain_;
    JournalEntry journal_;
};

}  // namespace

std::unique_ptr<Pausing> pausing(const Domain& domain, JournalEntry journal) {
    return std::make_unique<DomainPausing>(domain, std::move(journal));
}

}  // namespace exo::xen
