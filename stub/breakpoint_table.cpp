#include "stub/breakpoint_table.h"

#include <algorithm>
#include <utility>

#include <spdlog/spdlog.h>

#include "backends/arch/x86_64.h"

namespace exo::stub {
namespace {

bool is_execution(BreakpointKind kind) {
    return kind == BreakpointKind::software || kind == BreakpointKind::hardware;
}

bool covers(const BreakpointKey& key, VirtualAddress address) {
    return raw(address) - raw(key.address) < key.length;  // false below it, too
}

// What a debug register can watch, the largest that begins at `address` (Intel SDM vol. 3B, 18.2.5).
std::uint32_t widest_part(std::uint64_t address, std::uint32_t left) {
    std::uint32_t size = 8;
    while (size > left || address % size != 0) size /= 2;
    return size;
}

}  // namespace

bool BreakpointTable::supports(BreakpointKind kind) const {
    return !candidates(BreakpointKey{.kind = kind}).empty();
}

// As what a breakpoint may be put into the machine, the best first. Without a kernel whatever runs now may
// load code over an int3, which a debug register survives. A page of a program is also the file's, and every
// other process' that has it: no byte is written there.
std::vector<BreakpointKind> BreakpointTable::candidates(const BreakpointKey& key) const {
    auto* breakpoints = machine_.target().breakpoints();
    if (breakpoints == nullptr) return {};
    std::vector<BreakpointKind> kinds{key.kind};
    if (key.kind == BreakpointKind::software) {
        kinds.insert(machine_.os() == nullptr ? kinds.begin() : kinds.end(), BreakpointKind::hardware);
        const bool others_too = key.process != kernel_pid && breakpoints->changes_memory();
        if (hardware_only_ || others_too) kinds = {BreakpointKind::hardware};
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

std::vector<BreakpointKey> BreakpointTable::remove_of(std::int64_t process) {
    std::vector<BreakpointKey> removed;
    for (auto& [key, state] : table_) {
        if (!state.by_client || key.process != process) continue;
        state.by_client = false;
        --state.wanted;
        removed.push_back(key);
    }
    return removed;
}

Result<void> BreakpointTable::insert_internal(VirtualAddress address, std::int64_t process) {
    return want({BreakpointKind::software, address, 1, process}, false);
}

void BreakpointTable::remove_internal(VirtualAddress address, std::int64_t process) {
    const auto it = table_.find({BreakpointKind::software, address, 1, process});
    if (it != table_.end() && it->second.wanted > 0) --it->second.wanted;
}

Result<void> BreakpointTable::settle() {
    CHECK_OK(take_out_of_another_kernel());
    for (auto it = table_.begin(); it != table_.end();) {
        auto& [key, state] = *it;
        if (state.wanted == 0) {
            CHECK_OK(disarm(state));
            it = table_.erase(it);
            continue;
        }
        if (!state.armed) {
            auto armed = arm(key, state);
            if (!armed) state.pending_reason = armed.error().message;
            if (!armed && !std::exchange(state.told, true))
                news_.push_back("the breakpoint at " + hex(key.address) +
                                " is pending: " + state.pending_reason);
        }
        ++it;
    }
    return {};
}

// Another kernel than that of now: what loads one writes over an int3, and with one a debug register is too
// dear.
Result<void> BreakpointTable::take_out_of_another_kernel() {
    for (auto& [key, state] : table_) {
        const bool here = state.os_generation == machine_.os_generation();
        if (!here && key.kind == BreakpointKind::software) CHECK_OK(disarm(state));
    }
    return {};
}

bool BreakpointTable::worth_another_try() {
    return std::ranges::any_of(table_, [&](const auto& entry) {
        const auto& [key, state] = entry;
        if (state.armed || state.wanted == 0) return false;
        const bool of_kernel = x86::in_upper_half(raw(key.address)) && machine_.os() != nullptr;
        if (!of_kernel) return true;
        machine_.forget_memory();
        return machine_.os()->kernel_space().translate(key.address).has_value();
    });
}

Result<void> BreakpointTable::lift(VirtualAddress address) {
    for (auto& [key, state] : table_) {
        if (key.address == address && is_execution(key.kind)) CHECK_OK(disarm(state));
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

std::vector<BreakpointKey> BreakpointTable::client_breakpoints_at(VirtualAddress address) const {
    std::vector<BreakpointKey> keys;
    for (const auto& [key, state] : table_) {
        if (key.address == address && is_execution(key.kind) && state.by_client) keys.push_back(key);
    }
    return keys;
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

std::vector<BreakpointKey> BreakpointTable::watched_by_client(VirtualAddress address) const {
    std::vector<BreakpointKey> keys;
    for (const auto& [key, state] : table_) {
        if (!is_execution(key.kind) && state.by_client && covers(key, address)) keys.push_back(key);
    }
    return keys;
}

void BreakpointTable::forget() {
    in_machine_.clear();
    for (auto& [key, state] : table_) reveal(state);
    table_.clear();
}

// Where there is no room, what is to go at the next resume goes now.
Result<void> BreakpointTable::arm(const BreakpointKey& key, BreakpointState& state) {
    bool full = false;
    auto armed = try_to_arm(key, state, full);
    if (armed || !full) return armed;
    bool room = false;
    for (auto& [other, unwanted] : table_) {
        if (unwanted.wanted != 0 || !unwanted.armed) continue;
        CHECK_OK(disarm(unwanted));
        room = true;
    }
    return room ? try_to_arm(key, state, full) : armed;
}

Result<void> BreakpointTable::try_to_arm(const BreakpointKey& key, BreakpointState& state, bool& full) {
    std::optional<Error> failure;
    for (const BreakpointKind kind : candidates(key)) {
        auto armed = arm_as(kind, key, state);
        if (armed || armed.error().code == Errc::target_gone) return armed;
        full = full || armed.error().code == Errc::no_free_slot;
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
    if (kind == BreakpointKind::software && !in_machine_.contains(slot)) hide(key, state);
    if (auto inserted = insert_slot(slot); inserted) {
        state.parts = {slot};
    } else {
        reveal(state);
        if (is_execution(kind) || inserted.error().code != Errc::unsupported) return inserted;
        CHECK_OK(arm_parts(key, state));
    }
    state.armed = kind;
    state.os_generation = machine_.os_generation();
    state.pending_reason.clear();
    return {};
}

// All of them, or none.
Result<void> BreakpointTable::arm_parts(const BreakpointKey& key, BreakpointState& state) {
    std::vector<BreakpointKey> parts;
    std::uint64_t address = raw(key.address);
    for (std::uint32_t left = key.length; left > 0 && parts.size() <= x86::debug_registers;) {
        const auto size = widest_part(address, left);
        parts.push_back({key.kind, VirtualAddress{address}, size});
        address += size;
        left -= size;
    }
    if (parts.size() > x86::debug_registers) {
        return fail(Errc::no_free_slot, "watching " + std::to_string(key.length) + " bytes at " +
                                            hex(key.address) + " takes more than the four debug registers");
    }
    for (const BreakpointKey& part : parts) {
        auto inserted = insert_slot(part);
        if (inserted) {
            state.parts.push_back(part);
            continue;
        }
        for (const BreakpointKey& done : std::exchange(state.parts, {})) CHECK_OK(remove_slot(done));
        return fail(std::move(inserted).error().with_context(
            "watching " + std::to_string(key.length) + " bytes at " + hex(key.address) + " takes " +
            std::to_string(parts.size()) + " debug registers"));
    }
    return {};
}

Result<void> BreakpointTable::insert_slot(const BreakpointKey& slot) {
    if (!in_machine_.contains(slot))
        CHECK_OK(machine_.target().breakpoints()->insert(slot.kind, slot.address, slot.length));
    ++in_machine_[slot];
    return {};
}

Result<void> BreakpointTable::remove_slot(const BreakpointKey& slot) {
    const auto found = in_machine_.find(slot);
    if (found == in_machine_.end()) return {};
    if (found->second > 1) {
        --found->second;
        return {};
    }
    CHECK_OK(machine_.target().breakpoints()->remove(slot.kind, slot.address, slot.length));
    in_machine_.erase(found);
    return {};
}

Result<void> BreakpointTable::disarm(BreakpointState& state) {
    if (!state.armed) return {};
    while (!state.parts.empty()) {
        CHECK_OK(remove_slot(state.parts.back()));
        state.parts.pop_back();
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
