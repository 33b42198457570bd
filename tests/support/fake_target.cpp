#include "tests/support/fake_target.h"

#include <algorithm>
#include <array>
#include <thread>
#include <utility>

namespace exo::test {
namespace {

constexpr std::array kind_names{"software", "hardware", "write_watch", "read_watch", "access_watch"};
constexpr std::array action_names{"hold", "run", "step"};
constexpr std::uint64_t kernel_text = 0xffffffff81000000;

std::string show(BreakpointKind kind, VirtualAddress address, std::uint32_t length) {
    return std::string{kind_names.at(static_cast<std::size_t>(kind))} + " " + hex(address) + " " +
           std::to_string(length);
}

}  // namespace

Result<std::size_t> FakeRam::read_some(PhysicalAddress address, MutableBytes out) {
    if (out.empty()) return 0;
    if (raw(address) >= bytes_.size()) return exo::fail(Errc::bad_address, hex(address) + " is not RAM");
    const std::size_t count = std::min<std::size_t>(out.size(), bytes_.size() - raw(address));
    std::ranges::copy(at(raw(address), count), out.begin());
    return count;
}

Result<std::size_t> FakeRam::write_some(PhysicalAddress address, ConstBytes in) {
    if (in.empty()) return 0;
    if (raw(address) >= bytes_.size()) return exo::fail(Errc::bad_address, hex(address) + " is not RAM");
    const std::size_t count = std::min<std::size_t>(in.size(), bytes_.size() - raw(address));
    std::ranges::copy(in.first(count), at(raw(address), count).begin());
    return count;
}

FakeTarget::FakeTarget(FakeMachineShape shape) : shape_(std::move(shape)), ram_(shape_.ram) {
    for (VcpuId vcpu = 0; vcpu < shape_.vcpus; ++vcpu) {
        RegisterSet& registers = registers_.emplace_back(layout());
        for (RegisterNumber number = 0; number < layout().registers.size(); ++number)
            registers.set(number, 0);
        registers.set(x86::rip, 0x1000 + 0x100 * vcpu);
        registers.set(x86::rsp, 0x8000 + 0x4000 * vcpu);
        registers.set(x86::cr0, x86::cr0_pe);  // no paging: addresses below 4 GiB are physical
    }
}

void FakeTarget::script(StopEvent event, std::function<void()> before) {
    script_.push_back({event, std::move(before)});
}

void FakeTarget::fail(const std::string& call, Error error, int times) {
    failures_[call] = {std::move(error), times};
}

void FakeTarget::unmap_for_breakpoints(VirtualAddress address, bool unmapped) {
    if (unmapped) {
        unmapped_.insert(address);
    } else {
        unmapped_.erase(address);
    }
}

Result<void> FakeTarget::check(const std::string& call) {
    const auto it = failures_.find(call);
    if (it == failures_.end() || it->second.times == 0) return {};
    --it->second.times;
    return exo::fail(it->second.error);
}

Result<void> FakeTarget::called(const std::string& call, const std::string& arguments) {
    auto result = check(call);
    log_.push_back(call + (arguments.empty() ? "" : " " + arguments) +
                   (result ? "" : " failed: " + result.error().message));
    return result;
}

Result<RegisterSet> FakeTarget::read_registers(VcpuId vcpu) {
    CHECK_OK(check("read_registers"));
    RegisterSet registers = registers_.at(vcpu);
    for (const RegisterNumber number : slow_) registers.set_unavailable(number);
    return registers;
}

Result<void> FakeTarget::complete_registers(VcpuId vcpu, RegisterSet& registers) {
    if (slow_.empty()) return {};
    CHECK_OK(called("complete_registers", std::to_string(vcpu)));
    for (const RegisterNumber number : slow_) registers.set_bytes(number, registers_.at(vcpu).bytes(number));
    return {};
}

Result<void> FakeTarget::write_registers(VcpuId vcpu, const RegisterSet& values,
                                         std::span<const RegisterNumber> numbers) {
    std::string arguments = std::to_string(vcpu);
    for (const RegisterNumber number : numbers) {
        arguments.append(" ").append(layout().registers[number].name).append("=");
        arguments += hex(values.get(number).value_or(0));
    }
    CHECK_OK(called("write_registers", arguments));
    for (const RegisterNumber number : numbers) registers_.at(vcpu).set_bytes(number, values.bytes(number));
    return {};
}

Result<StopEvent> FakeTarget::attach() {
    if (in_attach_) std::exchange(in_attach_, {})();
    CHECK_OK(called("attach"));
    running_ = interrupted_ = false;
    return StopEvent{};
}

Result<void> FakeTarget::detach() {
    CHECK_OK(called("detach"));
    running_ = true;
    for (const auto& [kind, address, length] : inserted_) {
        if (kind == BreakpointKind::software) poke(address, false);
    }
    inserted_.clear();
    return {};
}

Result<void> FakeTarget::resume(std::span<const VcpuAction> actions) {
    std::string arguments;
    for (const VcpuAction action : actions) {
        if (!arguments.empty()) arguments += ' ';
        arguments += action_names.at(static_cast<std::size_t>(action));
    }
    CHECK_OK(called("resume", arguments));
    actions_.assign(actions.begin(), actions.end());
    running_ = true;
    return {};
}

Result<std::optional<StopEvent>> FakeTarget::wait_for_stop(std::chrono::milliseconds limit) {
    if (auto failed = check("wait"); !failed) {
        log_.push_back("wait failed: " + failed.error().message);
        return exo::fail(failed.error());
    }
    if (!running_) return exo::fail(Errc::backend, "the test waited for a guest that stands");
    if (in_wait_) std::exchange(in_wait_, {})();
    if (interrupted_.exchange(false)) {
        running_ = false;
        return StopEvent{.cause = StopEvent::Cause::interrupt};
    }
    if (script_.empty()) {
        std::this_thread::sleep_for(std::min(limit, std::chrono::milliseconds{1}));
        return std::nullopt;
    }
    Scripted next = std::move(script_.front());
    script_.pop_front();
    if (next.before) next.before();
    const bool hit = next.event.cause == StopEvent::Cause::breakpoint ||
                     next.event.cause == StopEvent::Cause::hardware_breakpoint;
    if (shape_.judges && hit && judge_ && actions_.at(next.event.vcpu) == VcpuAction::run &&
        TRY(judge_(next.event))) {
        log_.push_back("vCPU " + std::to_string(next.event.vcpu) + " goes on");
        return std::nullopt;
    }
    running_ = false;
    return next.event;
}

// Not in the log: it may come from another thread. When the guest stands it does nothing, as the contract
// says.
void FakeTarget::interrupt() noexcept {
    if (running_) interrupted_ = true;
}

Result<void> FakeTarget::refuse(const Key& key) const {
    const auto& [kind, address, length] = key;
    if (!supports(kind)) return exo::fail(Errc::unsupported, "not supported");
    if (inserted_.contains(key)) return exo::fail(Errc::backend, "inserted twice");
    if (kind == BreakpointKind::software) {
        if (unmapped_.contains(address)) return exo::fail(Errc::bad_address, hex(address) + " is not mapped");
        return {};
    }
    const bool fits = length <= 8 && (length & (length - 1)) == 0 && raw(address) % length == 0;
    if (shape_.aligned_watch && kind != BreakpointKind::hardware && !fits)
        return exo::fail(Errc::unsupported, "no debug register watches that");
    const auto used = std::ranges::count_if(
        inserted_, [](const Key& k) { return std::get<0>(k) != BreakpointKind::software; });
    if (static_cast<std::size_t>(used) >= shape_.debug_registers) {
        return exo::fail(Errc::no_free_slot, "all debug registers are taken");
    }
    return {};
}

Result<void> FakeTarget::insert(BreakpointKind kind, VirtualAddress address, std::uint32_t length) {
    const std::string shown = show(kind, address, length);
    if (auto refused = refuse({kind, address, length}); !refused) {
        log_.push_back("insert " + shown + " failed: " + refused.error().message);
        return refused;
    }
    CHECK_OK(called("insert", shown));
    inserted_.insert({kind, address, length});
    if (kind == BreakpointKind::software) poke(address, true);
    return {};
}

Result<void> FakeTarget::remove(BreakpointKind kind, VirtualAddress address, std::uint32_t length) {
    const std::string shown = show(kind, address, length);
    if (!inserted_.contains({kind, address, length})) {
        log_.push_back("remove " + shown + " failed: it is not there");
        return exo::fail(Errc::not_found, "no such breakpoint");
    }
    CHECK_OK(called("remove", shown));
    inserted_.erase({kind, address, length});
    if (kind == BreakpointKind::software) poke(address, false);
    return {};
}

void FakeTarget::poke(VirtualAddress address, bool insert) {
    if (!shape_.int3_in_memory) return;
    const std::uint64_t where = raw(address) >= kernel_text ? raw(address) - kernel_text : raw(address);
    if (where >= ram_.size()) return;
    std::byte& byte = ram_.at(where, 1)[0];
    if (insert) {
        saved_bytes_[where] = std::exchange(byte, std::byte{0xcc});
    } else if (const auto it = saved_bytes_.find(where); it != saved_bytes_.end()) {
        byte = it->second;
        saved_bytes_.erase(it);
    }
}

Result<std::uint64_t> FakeTarget::read_msr(VcpuId vcpu, std::uint32_t number) {
    CHECK_OK(called("read_msr", std::to_string(vcpu) + " " + hex(number)));
    const auto found = msrs_.find(number);
    if (found == msrs_.end()) return exo::fail(Errc::not_found, "no MSR " + hex(number));
    return found->second;
}

Result<void> FakeTarget::reset() {
    CHECK_OK(called("reset"));
    if (in_reset_) std::exchange(in_reset_, {})();
    return {};
}

Result<std::string> FakeTarget::command(const std::string& line) {
    CHECK_OK(called("console", line));
    return "console: " + line + "\n";
}

}  // namespace exo::test
