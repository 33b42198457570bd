#include "backends/kvm/evidence.h"

#include <algorithm>
#include <tuple>

namespace exo::kvm {
namespace {

using x86::PageTables;

constexpr std::uint64_t table_bytes = 4096;
constexpr std::uint64_t table_entries = 512;
constexpr std::uint64_t upper_half = 1ULL << 63;

// How many leaves below a table that was found by search have to come out as KVM's.
constexpr std::size_t window_leaves = 4;
constexpr std::size_t window_tables = 64;

// Bounds of a survey: of the tables that are read for one half of one address space, of the address spaces,
// and of the questions. Each piece is to be met in so many tables, and further in each of its chunks.
constexpr std::size_t survey_tables = 4096;
constexpr std::size_t survey_roots = 8;
constexpr std::size_t survey_questions = 512;
constexpr std::size_t most_missing = 1024;
constexpr std::size_t tables_a_piece = 16;
constexpr std::size_t tables_a_chunk = 2;
constexpr unsigned chunk_shift = 27;
constexpr std::size_t questions_a_table = 2;

// The tables that a visit came through to where it is.
class Trail {
public:
    void enter(const PageTables::Table& table) {
        leave(table.entry_span);
        path_.push_back(table);
    }
    // Up to the table whose entries span so much.
    void leave(std::uint64_t span, bool inclusive = true) {
        while (!path_.empty() &&
               (path_.back().entry_span < span || (inclusive && path_.back().entry_span == span)))
            path_.pop_back();
    }
    // Back in the table that has this leaf.
    void at(const PageTables::Leaf& leaf) { leave(leaf.translation.page_size, false); }
    [[nodiscard]] const std::vector<PageTables::Table>& path() const { return path_; }

private:
    std::vector<PageTables::Table> path_;
};

enum class Verdict : std::uint8_t { agrees, contradicts, says_nothing };

// KVM_TRANSLATE makes a supervisor's access: pages of user mode are unmapped to it where SMAP or protection
// keys forbid them (Linux arch/x86/kvm/mmu.h, permission_fault()).
Verdict compare(std::optional<std::uint64_t> ours, bool user, std::optional<std::uint64_t> kvms) {
    if (ours == kvms) return ours ? Verdict::agrees : Verdict::says_nothing;
    return user && !kvms ? Verdict::says_nothing : Verdict::contradicts;
}

void confirm(const Trail& trail, Finding& finding) {
    ++finding.agreed;
    for (const auto& table : trail.path()) finding.confirmed.insert(raw(table.address) & ~(table_bytes - 1));
}

MissingTable missing_of(const PageTables::Table& table, std::size_t witness) {
    return {witness, raw(table.address) & ~(table_bytes - 1), raw(table.start),
            table.entry_span * table_entries};
}

}  // namespace

Evidence::Evidence(std::span<const Witness> witnesses, const ReadVmm& read)
    : witnesses_(witnesses), read_(&read) {}

bool Evidence::translates(std::size_t witness) const {
    const Witness& state = witnesses_[witness];
    return x86::paging_mode(state.cr0, state.cr4, state.efer) != x86::PagingMode::none;
}

PageTables Evidence::tables(PhysicalMemory& memory, std::size_t witness) const {
    const Witness& state = witnesses_[witness];
    return {memory, PhysicalAddress{state.cr3}, x86::paging_mode(state.cr0, state.cr4, state.efer)};
}

const Evidence::Answer& Evidence::ask(std::size_t witness, std::uint64_t address) {
    const auto [entry, is_new] = answers_.try_emplace({witness, address});
    if (!is_new) return entry->second;
    auto answer = witnesses_[witness].translate(VirtualAddress{address});
    if (answer) {
        entry->second.known = true;
        if (*answer) entry->second.physical = raw(**answer);
    } else if (!error_) {
        error_ = std::move(answer).error();
    }
    return entry->second;
}

std::vector<std::uint64_t> Evidence::mapped_addresses(std::size_t witness) {
    std::vector<std::uint64_t> mapped;
    for (const std::uint64_t address : witnesses_[witness].addresses)
        if (ask(witness, address).physical) mapped.push_back(address);
    return mapped;
}

void Evidence::check_address(const Guess& guess, std::size_t witness, std::uint64_t address,
                             Finding& finding) {
    const Answer& answer = ask(witness, address);
    if (!answer.known) return;
    GuessMemory memory{guess, *read_};
    auto space = tables(memory, witness);
    Trail trail;
    std::optional<MissingTable> missing;
    std::optional<std::uint64_t> physical;
    bool user = false;
    const auto enter = [&](const PageTables::Table& table) {
        trail.enter(table);
        if (guess.find(raw(table.address)) == nullptr) missing = missing_of(table, witness);
        return !missing;
    };
    const auto visit = [&](const PageTables::Leaf& leaf) {
        physical = raw(leaf.translation.physical) + (address - raw(leaf.start));
        user = leaf.translation.user;
        return false;
    };
    std::ignore = space.for_each_leaf(VirtualAddress{address}, 1, visit, window_tables, enter);
    if (missing) {
        // To KVM tables that are in no memory are as none.
        if (answer.physical) finding.missing.push_back(*missing);
        return;
    }
    const Verdict verdict = compare(physical, user, answer.physical);
    if (verdict == Verdict::agrees) confirm(trail, finding);
    if (verdict == Verdict::contradicts) finding.contradicted = true;
}

void Evidence::check_window(const Guess& guess, std::size_t witness, const Claim& claim, Finding& finding) {
    GuessMemory memory{guess, *read_};
    auto space = tables(memory, witness);
    Trail trail;
    std::size_t compared = 0;
    const auto enter = [&](const PageTables::Table& table) {
        trail.enter(table);
        if (guess.find(raw(table.address)) != nullptr) return true;
        finding.missing.push_back(missing_of(table, witness));
        return false;
    };
    const auto visit = [&](const PageTables::Leaf& leaf) {
        trail.at(leaf);
        const Answer& answer = ask(witness, raw(leaf.start));
        const Verdict verdict =
            answer.known ? compare(raw(leaf.translation.physical), leaf.translation.user, answer.physical)
                         : Verdict::says_nothing;
        if (verdict == Verdict::agrees) confirm(trail, finding);
        finding.contradicted = verdict == Verdict::contradicts;
        return !finding.contradicted && ++compared < window_leaves;
    };
    std::ignore =
        space.for_each_leaf(VirtualAddress{claim.window}, claim.window_size, visit, window_tables, enter);
    // A table that maps nothing would not be there to be found.
    if (compared == 0 && finding.missing.empty()) finding.contradicted = true;
}

Finding Evidence::check(const Guess& guess, std::size_t witness, const Claim& claim) {
    Finding finding;
    for (const std::uint64_t address : claim.addresses) {
        check_address(guess, witness, address, finding);
        if (finding.contradicted) return finding;
    }
    if (claim.window_size > 0) check_window(guess, witness, claim, finding);
    return finding;
}

struct Evidence::Survey {
    Evidence& evidence;
    const Guess& guess;
    Finding finding;
    std::size_t questions = 0;
    std::set<std::pair<std::uint64_t, std::uint64_t>>
        visited;                                    // table and level: the same one is in many roots
    std::map<std::uint64_t, std::size_t> asked;     // by table
    std::map<std::uint64_t, std::size_t> of_piece;  // confirmed tables, by the piece's start
    std::map<std::uint64_t, std::size_t> of_chunk;

    bool enter(const PageTables::Table& table, std::size_t witness, Trail& trail) {
        trail.enter(table);
        const bool there = guess.find(raw(table.address)) != nullptr;
        if (!there && finding.missing.size() >= most_missing) return false;
        if (!visited.emplace(raw(table.address), table.entry_span).second) return false;
        if (there) return true;
        finding.missing.push_back(missing_of(table, witness));
        return false;
    }

    // Whether a walk through this table would tell something new.
    bool wanted(std::uint64_t table) const {
        if (finding.confirmed.contains(table)) return false;
        const Piece* piece = guess.find(table);
        if (piece == nullptr) return false;
        const auto in_piece = of_piece.find(piece->start);
        const auto in_chunk = of_chunk.find(table >> chunk_shift);
        return in_piece == of_piece.end() || in_piece->second < tables_a_piece ||
               in_chunk == of_chunk.end() || in_chunk->second < tables_a_chunk;
    }

    bool leaf(const PageTables::Leaf& leaf, std::size_t witness, Trail& trail) {
        trail.at(leaf);
        if (trail.path().empty() || questions >= survey_questions) return questions < survey_questions;
        std::size_t& times = asked[raw(trail.path().back().address)];
        const bool again = times > 0 && times < questions_a_table;
        const bool worth = again || std::ranges::any_of(trail.path(), [&](const PageTables::Table& table) {
                               return wanted(raw(table.address) & ~(table_bytes - 1));
                           });
        if (!worth) return true;
        ++times;
        ++questions;
        const Answer& answer = evidence.ask(witness, raw(leaf.start));
        if (!answer.known) return true;
        const Verdict verdict =
            compare(raw(leaf.translation.physical), leaf.translation.user, answer.physical);
        if (verdict == Verdict::agrees) agree(trail);
        finding.contradicted = verdict == Verdict::contradicts;
        return !finding.contradicted;
    }

    void agree(const Trail& trail) {
        for (const auto& table : trail.path()) {
            const std::uint64_t address = raw(table.address) & ~(table_bytes - 1);
            if (finding.confirmed.contains(address)) continue;
            if (const Piece* piece = guess.find(address)) ++of_piece[piece->start];
            ++of_chunk[address >> chunk_shift];
        }
        confirm(trail, finding);
    }

    void walk(std::size_t witness, std::uint64_t start, std::uint64_t size) {
        GuessMemory memory{guess, *evidence.read_};
        auto space = evidence.tables(memory, witness);
        Trail trail;
        std::ignore = space.for_each_leaf(
            VirtualAddress{start}, size,
            [&](const PageTables::Leaf& found) { return leaf(found, witness, trail); }, survey_tables,
            [&](const PageTables::Table& table) { return enter(table, witness, trail); });
    }
};

Finding Evidence::survey(const Guess& guess) {
    Survey survey{*this, guess, {}, 0, {}, {}, {}, {}};
    std::set<std::uint64_t> roots;
    for (std::size_t i = 0; i < witnesses_.size() && !survey.finding.contradicted; ++i) {
        if (!translates(i)) continue;
        for (const std::uint64_t address : witnesses_[i].addresses) {
            check_address(guess, i, address, survey.finding);
            if (survey.finding.contradicted) return std::move(survey.finding);
        }
        if (roots.size() >= survey_roots || !roots.insert(witnesses_[i].cr3 & ~(table_bytes - 1)).second)
            continue;
        survey.walk(i, upper_half, upper_half);
        // The root was entered for the other half already.
        std::erase_if(survey.visited, [&](const auto& entry) {
            return (entry.first & ~(table_bytes - 1)) == (witnesses_[i].cr3 & ~(table_bytes - 1));
        });
        if (!survey.finding.contradicted) survey.walk(i, 0, upper_half);
    }
    return std::move(survey.finding);
}

}  // namespace exo::kvm
