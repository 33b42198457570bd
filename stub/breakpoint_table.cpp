#include "stub/breakpoint_table.h"

#include <algorithm>
#include <utility>

#include <spdlog/spdlog.h>

namespace exo::stub {
namespace {

bool is_execution(BreakpointKind kind) {
    return kind == BreakpointKind::software || kind == BreakpointKind::hardware;
}

}  // namespace

bool BreakpointTable::supports(BreakpointKind kind) const { return !candidates(kind).empty(); }

// As what a breakpoint may be put into the machine, the best first. Without a kernel whatever runs now may
// load code over an int3, which a debug register survives.
std::vector<BreakpointKind> BreakpointTable::candidates(BreakpointKind kind) const {
    auto* breakpoints = machine_.target().breakpoints();
    if (breakpoints == nullptr) return {};
    std::vector<BreakpointKind> kinds{kind};
    if (kind == BreakpointKind::software) {
        kinds.insert(machine_.os() == nullptr ? kinds.begin() : kinds.end(), BreakpointKind::hardware);
    }
    std::erase_if(kinds, [&](BreakpointKind k) { return !breakpoints->supports(k); });
    return kinds;
}

Result<void> BreakpointTable::insert(const BreakpointKey& key) {
    if (const auto it = table_.find(key); it != table_.end() && it->second.by_client) return {};
    // A software breakpoint that is merely not possible yet is kept; any other is refused.
    CHECK_OK(want(key, key.kind == BreakpointKind::software));
    table_.at(key).by_client = true;
    return {};
}

Result<void> BreakpointTable::want(const BreakpointKey& key, bool may_be_pending) {
    BreakpointState& state = table_[key];
    if (!state.armed) {
        if (auto armed = arm(key, state); !armed) {
            if (!may_be_pending || armed.error().code == Errc::target_gone) {
                if (state.wanted == 0) table_.erase(key);
                return armed;
            }
            state.pending_reason = armed.error().message;
        }
    }
    ++state.wanted;
    return {};
}

void BreakpointTable::remove(const BreakpointKey& key) {
    const auto it = table_.find(key);
    if (it == table_.end() || !it->second.by_client) return;
    it->second.by_client = false;
    --it->second.wanted;
}

void BreakpointTable::remove_all() {
    for (auto& [key, state] : table_) {
        if (!state.by_client) continue;
        state.by_client = false;
        --state.wanted;
    }
}

Result<void> BreakpointTable::insert_internal(VirtualAddress address) {
    return want({BreakpointKind::software, address, 1}, false);
}

void BreakpointTable::remove_internal(VirtualAddress address) {
    const auto it = table_.find({BreakpointKind::software, address, 1});
    if (it != table_.end() && it->second.wanted > 0) --it->second.wanted;
}

Result<void> BreakpointTable::settle() {
    for (auto it = table_.begin(); it != table_.end();) {
        auto& [key, state] = *it;
        if (state.wanted == 0) {
            CHECK_OK(disarm(key, state));
            it = table_.erase(it);
            continue;
        }
        if (!state.armed) {
            auto armed = arm(key, state);
            if (!armed) state.pending_reason = armed.error().message;
        }
        ++it;
    }
    return {};
}

Result<void> BreakpointTable::lift(VirtualAddress address) {
    for (auto& [key, state] : table_) {
        if (key.address == address && is_execution(key.kind)) CHECK_OK(disarm(key, state));
    }
    return {};
}

Result<void> BreakpointTable::put_back(VirtualAddress address) {
    for (auto& [key, state] : table_) {
        if (key.address != address || !is_execution(key.kind) || state.wanted == 0 || state.armed) continue;
        CHECK_OK(arm(key, state));
    }
    return {};
}

std::optional<BreakpointKind> BreakpointTable::client_breakpoint_at(VirtualAddress address) const {
    for (const auto& [key, state] : table_) {
        if (key.address == address && is_execution(key.kind) && state.by_client) return key.kind;
    }
    return std::nullopt;
}

bool BreakpointTable::any_at(VirtualAddress address) const {
    return std::ranges::any_of(table_, [&](const auto& entry) {
        return entry.first.address == address && is_execution(entry.first.kind) && entry.second.armed;
    });
}

bool BreakpointTable::has_client(const BreakpointKey& key) const {
    const auto it = table_.find(key);
    return it != table_.end() && it->second.by_client;
}

bool BreakpointTable::steps_in_place(VirtualAddress address) const {
    return std::ranges::all_of(table_, [&](const auto& entry) {
        const auto& [key, state] = entry;
        return key.address != address || !is_execution(key.kind) || !state.armed ||
               machine_.target().breakpoints()->steps_in_place(*state.armed);
    });
}

void BreakpointTable::forget() {
    in_machine_.clear();
    for (auto& [key, state] : table_) reveal(state);
    table_.clear();
}

Result<void> BreakpointTable::arm(const BreakpointKey& key, BreakpointState& state) {
    std::optional<Error> failure;
    for (const BreakpointKind kind : candidates(key.kind)) {
        auto armed = arm_as(kind, key, state);
        if (armed || armed.error().code == Errc::target_gone) return armed;
        if (failure) {
            failure->message += "; " + armed.error().message;
        } else {
            failure = std::move(armed).error();
        }
    }
    if (!failure) return fail(Errc::unsupported, "this target has no such breakpoints");
    return fail(*std::move(failure));
}

Result<void> BreakpointTable::arm_as(BreakpointKind kind, const BreakpointKey& key, BreakpointState& state) {
    const BreakpointKey slot{kind, key.address, key.length};
    if (!in_machine_.contains(slot)) {
        if (kind == BreakpointKind::software) hide(key, state);
        if (auto inserted = machine_.target().breakpoints()->insert(kind, key.address, key.length);
            !inserted) {
            reveal(state);
            return inserted;
        }
    }
    ++in_machine_[slot];
    state.armed = kind;
    state.pending_reason.clear();
    return {};
}

Result<void> BreakpointTable::disarm(const BreakpointKey& key, BreakpointState& state) {
    if (!state.armed) return {};
    const auto slot = in_machine_.find({*state.armed, key.address, key.length});
    if (slot != in_machine_.end() && slot->second > 1) {
        --slot->second;
    } else {
        CHECK_OK(machine_.target().breakpoints()->remove(*state.armed, key.address, key.length));
        in_machine_.erase(slot);
    }
    state.armed.reset();
    reveal(state);
    return {};
}

void BreakpointTable::hide(const BreakpointKey& key, BreakpointState& state) {
    if (machine_.os() == nullptr || state.hidden) return;
    const auto where = machine_.os()->kernel_space().translate(key.address);
    std::byte original{};
    if (!where || !machine_.clean_memory().read(where->physical, MutableBytes{&original, 1})) return;
    // An int3 of the guest's own needs no hiding.
    if (original == CleanMemory::int3) return;
    machine_.clean_memory().hide(where->physical, original);
    state.hidden = where->physical;
}

void BreakpointTable::reveal(BreakpointState& state) {
    if (!state.hidden) return;
    if (auto revealed = machine_.clean_memory().reveal(*state.hidden); !revealed) {
        spdlog::error("writing what was written under a breakpoint: {}", revealed.error().message);
    }
    state.hidden.reset();
}

}  // namespace exo::stub
