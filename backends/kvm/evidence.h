// What witnesses say of a guess: walks through it against KVM's own.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "backends/arch/page_tables.h"
#include "backends/kvm/guess.h"
#include "backends/kvm/slots.h"

namespace exo::kvm {

// A page table of which the guess does not say where it lies.
struct MissingTable {
    std::size_t witness = 0;
    std::uint64_t address = 0;  // guest-physical
    std::uint64_t window = 0;   // the virtual addresses that it maps
    std::uint64_t window_size = 0;
};

struct Finding {
    std::size_t agreed = 0;             // walks that came out as KVM's
    bool contradicted = false;          // one that did not; what else is told is then incomplete
    std::set<std::uint64_t> confirmed;  // page tables that the former went through, guest-physical
    std::vector<MissingTable> missing;  // where others ended
};

// What is to come out as KVM says: some addresses, or what is mapped in a window, if it is not empty.
struct Claim {
    std::vector<std::uint64_t> addresses;
    std::uint64_t window = 0;
    std::uint64_t window_size = 0;
};

class Evidence {
public:
    Evidence(std::span<const Witness> witnesses, const ReadVmm& read);

    [[nodiscard]] std::span<const Witness> witnesses() const { return witnesses_; }
    // Whether it has paging on.
    [[nodiscard]] bool translates(std::size_t witness) const;
    // Of its addresses, those that KVM says are mapped.
    std::vector<std::uint64_t> mapped_addresses(std::size_t witness);

    Finding check(const Guess& guess, std::size_t witness, const Claim& claim);
    // All tables of all witnesses, as far as bounds allow; some entries of each compared with KVM's walks.
    Finding survey(const Guess& guess);

    // Why a witness did not answer, the first time that one did not.
    [[nodiscard]] const std::optional<Error>& error() const { return error_; }

private:
    struct Survey;

    struct Answer {
        bool known = false;
        std::optional<std::uint64_t> physical;
    };
    // Each address is asked for once: a question is a system call in another process.
    const Answer& ask(std::size_t witness, std::uint64_t address);
    x86::PageTables tables(PhysicalMemory& memory, std::size_t witness) const;
    void check_address(const Guess& guess, std::size_t witness, std::uint64_t address, Finding& finding);
    void check_window(const Guess& guess, std::size_t witness, const Claim& claim, Finding& finding);

    std::span<const Witness> witnesses_;
    const ReadVmm* read_;
    std::map<std::pair<std::size_t, std::uint64_t>, Answer> answers_;
    std::optional<Error> error_;
};

}  // namespace exo::kvm
