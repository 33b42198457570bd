#include "tests/support/target_contract.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "backends/arch/x86_64.h"

namespace exo::test {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using Outcome = Result<std::string>;  // the detail

tl::unexpected<Error> wrong(std::string what) { return fail(Errc::bad_data, std::move(what)); }

class Contract {
public:
    Contract(Target& target, const ContractOptions& options) : target_(target), options_(options) {}

    std::vector<ContractResult> run() {
        check("has vCPUs and a description", [this] { return basics(); });
        check("runs before attach", [this] { return is_running(true); });
        check("memory regions are sorted and disjoint", [this] { return regions(); });
        check("RAM is readable while running", [this] { return read_every_region(); });
        check("holes and devices are bad addresses", [this] { return holes(); });
        check("registers of the running guest", [this] { return snapshot(); });
        if (target_.execution() == nullptr) return std::move(results_);
        if (!check("attach stops the guest", [this] { return attach(); })) return std::move(results_);
        check("is stopped", [this] { return is_running(false); });
        check("registers of every vCPU, twice the same", [this] { return registers(); });
        check("scattered reads are as single ones", [this] { return scattered_reads(); });
        check("register write and restore", [this] { return write_register(); });
        check("memory write and restore", [this] { return write_memory(); });
        check("interrupt while stopped is harmless", [this] { return stale_interrupt(); });
        check("interrupt stops all", [this] { return interrupt(); });
        check("steps of one vCPU", [this] { return steps(); });
        check("software breakpoint", [this] { return breakpoint(BreakpointKind::software); });
        check("hardware breakpoint", [this] { return breakpoint(BreakpointKind::hardware); });
        check("detach, and it runs", [this] { return detach(); });
        check("attach again", [this] { return attach(); });
        check("detach while running", [this] { return detach_running(); });
        check("runs at the end", [this] { return is_running(true); });
        return std::move(results_);
    }

private:
    bool check(std::string name, const std::function<Outcome()>& body) {
        const auto outcome = body();
        results_.push_back(
            {std::move(name), outcome.has_value(), outcome ? *outcome : outcome.error().message});
        return outcome.has_value();
    }

    Execution& execution() { return *target_.execution(); }

    Outcome basics() {
        if (target_.vcpu_count() == 0) return wrong("no vCPU");
        return std::to_string(target_.vcpu_count()) + " vCPUs, " + target_.description();
    }

    Outcome is_running(bool wanted) {
        if (TRY(target_.running()) != wanted) return wrong(wanted ? "it is stopped" : "it runs");
        return std::string{};
    }

    Outcome regions() {
        std::uint64_t end = 0;
        for (const auto& region : target_.memory().regions()) {
            if (region.size == 0 || raw(region.start) < end) return wrong("at " + hex(region.start));
            end = region.end();
        }
        if (end == 0) return wrong("none");
        return std::to_string(target_.memory().regions().size()) + " regions";
    }

    Outcome read_every_region() {
        const std::vector<MemoryRegion> all{target_.memory().regions().begin(),
                                            target_.memory().regions().end()};
        std::uint64_t bytes = 0;
        for (const auto& region : all) {
            if (region.kind == MemoryRegion::Kind::mmio) continue;
            std::vector<std::byte> buffer(std::min<std::uint64_t>(region.size, 65536));
            CHECK_OK(target_.memory().read(region.start, buffer));
            CHECK_OK(target_.memory().read(PhysicalAddress{region.end() - buffer.size()}, buffer));
            bytes += region.size;
        }
        return std::to_string(bytes >> 20U) + " MiB";
    }

    // From the end of every region backwards, across its end, and a page of each: what can be read in one go
    // lies among what cannot.
    Outcome scattered_reads() {
        const std::vector<MemoryRegion> all{target_.memory().regions().begin(),
                                            target_.memory().regions().end()};
        std::vector<PhysicalAddress> places;
        for (const auto& region : all) {
            for (const std::uint64_t back : {std::uint64_t{16}, std::min<std::uint64_t>(region.size, 4096)})
                places.push_back(PhysicalAddress{region.end() - back});
            places.push_back(region.start);
            places.push_back(PhysicalAddress{region.end()});
        }
        constexpr std::size_t size = 4096;
        std::vector<std::byte> bytes(places.size() * size);
        std::vector<PhysicalMemory::Fragment> fragments;
        for (std::size_t i = 0; i < places.size(); ++i)
            fragments.push_back({places[i], MutableBytes{bytes}.subspan(i * size, size)});
        target_.memory().read_scattered(fragments);
        std::size_t read = 0;
        for (const auto& fragment : fragments) {
            std::vector<std::byte> single(size);
            const auto count = target_.memory().read_some(fragment.address, single).value_or(0);
            if (fragment.read != count) return wrong("how much is read at " + hex(fragment.address));
            if (!std::ranges::equal(fragment.out.first(count), ConstBytes{single}.first(count)))
                return wrong("what is read at " + hex(fragment.address));
            read += count;
        }
        if (read == 0) return wrong("nothing was read");
        return std::to_string(fragments.size()) + " places, " + std::to_string(read) + " bytes";
    }

    Outcome expect_bad_address(PhysicalAddress address) {
        std::byte byte{};
        const auto read = target_.memory().read_some(address, {&byte, 1});
        if (read || read.error().code != Errc::bad_address) return wrong("no bad_address at " + hex(address));
        return std::string{};
    }

    Outcome holes() {
        const std::vector<MemoryRegion> all{target_.memory().regions().begin(),
                                            target_.memory().regions().end()};
        for (std::size_t i = 0; i < all.size(); ++i) {
            if (all[i].kind == MemoryRegion::Kind::mmio) TRY(expect_bad_address(all[i].start));
            const bool hole = i + 1 == all.size() || raw(all[i + 1].start) != all[i].end();
            if (!hole) continue;
            TRY(expect_bad_address(PhysicalAddress{all[i].end()}));
            if (all[i].kind == MemoryRegion::Kind::mmio || all[i].size < 16) continue;
            std::vector<std::byte> across(32);  // memory ends in its middle
            const auto count = target_.memory().read_some(PhysicalAddress{all[i].end() - 16}, across);
            if (!count || *count != 16) return wrong("a read across the end at " + hex(all[i].end()));
        }
        return std::string{};
    }

    Outcome snapshot() {
        for (VcpuId vcpu = 0; vcpu < target_.vcpu_count(); ++vcpu) {
            const auto registers = TRY(target_.read_registers(vcpu));
            for (const auto number :
                 {x86::rip, x86::rsp, x86::cs, x86::cr0, x86::cr3, x86::cr4, x86::efer, x86::gs_base})
                if (!registers.available(number))
                    return wrong("no " + std::string{target_.layout().registers[number].name});
        }
        return is_running(true);
    }

    Outcome attach() {
        const auto start = Clock::now();
        if (TRY(execution().attach()).cause != StopEvent::Cause::none)
            return wrong("a stop event of its own");
        const auto took = Clock::now() - start;
        CHECK_OK(execution().attach());  // idempotent
        return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(took).count()) + " ms";
    }

    Outcome registers() {
        const auto start = Clock::now();
        for (VcpuId vcpu = 0; vcpu < target_.vcpu_count(); ++vcpu) {
            const auto first = TRY(target_.read_registers(vcpu));
            auto second = TRY(target_.read_registers(vcpu));
            for (RegisterNumber number = 0; number < target_.layout().registers.size(); ++number)
                if (!std::ranges::equal(first.bytes(number), second.bytes(number)))
                    return wrong(std::string{target_.layout().registers[number].name} + " changes");
            CHECK_OK(target_.complete_registers(vcpu, second));
            if (!second.available(x86::rip) || !second.available(x86::cr3)) return wrong("no rip or cr3");
        }
        const auto beyond = target_.read_registers(target_.vcpu_count());
        if (beyond || beyond.error().code != Errc::no_such_thread) return wrong("a vCPU too many");
        const auto took = (Clock::now() - start) / target_.vcpu_count();
        return std::to_string(std::chrono::duration_cast<std::chrono::microseconds>(took).count()) +
               " us a vCPU";
    }

    Outcome write_register() {
        const auto before = TRY(target_.read_registers(0));
        auto changed = before;
        changed.set(x86::rsi, 0x01234567);  // fits every mode of the CPU
        const RegisterNumber numbers[] = {x86::rsi};
        CHECK_OK(target_.write_registers(0, changed, numbers));
        const auto now = TRY(target_.read_registers(0));
        CHECK_OK(target_.write_registers(0, before, numbers));
        const auto after = TRY(target_.read_registers(0));
        if (now.get(x86::rsi) != changed.get(x86::rsi)) return wrong("rsi was not written");
        if (after.get(x86::rsi) != before.get(x86::rsi)) return wrong("rsi was not restored");
        return std::string{};
    }

    // The last 5000 bytes of the lowest RAM: three packets of QEMU's stub, and no page border.
    Outcome write_memory() {
        const auto ram =
            std::ranges::find(target_.memory().regions(), MemoryRegion::Kind::ram, &MemoryRegion::kind);
        const PhysicalAddress place{ram->end() - 5003};
        std::vector<std::byte> before(5000);
        CHECK_OK(target_.memory().read(place, before));
        auto changed = before;
        for (auto& byte : changed) byte = ~byte;
        CHECK_OK(target_.memory().write(place, changed));
        std::vector<std::byte> now(before.size());
        const auto reread = target_.memory().read(place, now);
        CHECK_OK(target_.memory().write(place, before));
        CHECK_OK(reread);
        if (now != changed) return wrong("at " + hex(place) + " it was not written");
        CHECK_OK(target_.memory().read(place, now));
        if (now != before) return wrong("at " + hex(place) + " it was not restored");
        return std::string{};
    }

    Result<void> resume_all(VcpuAction action = VcpuAction::run) {
        return execution().resume(std::vector<VcpuAction>(target_.vcpu_count(), action));
    }

    Result<StopEvent> wait() {
        const auto event = TRY(execution().wait_for_stop(options_.patience));
        if (!event) return fail(Errc::timed_out, "no stop");
        return *event;
    }

    Result<StopEvent> interrupt_and_wait() {
        execution().interrupt();
        return wait();
    }

    Outcome stale_interrupt() {
        execution().interrupt();
        CHECK_OK(resume_all());
        const auto early = TRY(execution().wait_for_stop(300ms));
        if (early) return wrong("it stopped by an interrupt from before");
        CHECK_OK(interrupt_and_wait());
        return std::string{};
    }

    Outcome interrupt() {
        CHECK_OK(resume_all());
        CHECK_OK(is_running(true));
        const auto start = Clock::now();
        const auto event = TRY(interrupt_and_wait());
        const auto took = Clock::now() - start;
        if (event.cause != StopEvent::Cause::interrupt) return wrong("another cause");
        CHECK_OK(is_running(false));
        return std::to_string(std::chrono::duration_cast<std::chrono::microseconds>(took).count()) + " us";
    }

    // A vCPU that has halted does not step until an interrupt wakes it: look for one that steps.
    Outcome steps() {
        for (int attempt = 0; attempt < 50; ++attempt) {
            for (VcpuId vcpu = 0; vcpu < target_.vcpu_count(); ++vcpu) {
                const auto stepped = TRY(step(vcpu, 500ms));
                if (!stepped) continue;
                const auto start = Clock::now();
                for (int i = 0; i < options_.steps; ++i)
                    if (!TRY(step(vcpu, options_.patience)))
                        return std::to_string(i) + " steps, then it halted";
                const auto took = (Clock::now() - start) / options_.steps;
                return std::to_string(std::chrono::duration_cast<std::chrono::microseconds>(took).count()) +
                       " us a step";
            }
            CHECK_OK(resume_all());
            CHECK_OK(execution().wait_for_stop(std::chrono::milliseconds{7 * attempt}));
            if (TRY(target_.running())) CHECK_OK(interrupt_and_wait());
        }
        return wrong("no vCPU could be stepped");
    }

    // One step with the others held; false if it was interrupted instead.
    Result<bool> step(VcpuId vcpu, std::chrono::milliseconds limit) {
        std::vector<VcpuAction> actions(target_.vcpu_count(), VcpuAction::hold);
        actions[vcpu] = VcpuAction::step;
        const auto before = TRY(target_.read_registers(vcpu)).get(x86::rip);
        CHECK_OK(execution().resume(actions));
        auto event = TRY(execution().wait_for_stop(limit));
        if (!event) event = TRY(interrupt_and_wait());
        if (event->cause == StopEvent::Cause::interrupt) return false;
        if (event->cause != StopEvent::Cause::step || event->vcpu != vcpu)
            return fail(Errc::bad_data, "the stop is not the step's");
        last_left_ = before;
        return true;
    }

    // Where a vCPU was that stepped on: a place that is come by again.
    Outcome breakpoint(BreakpointKind kind) {
        auto* breakpoints = target_.breakpoints();
        if (breakpoints == nullptr || !breakpoints->supports(kind)) return std::string{"none"};
        CHECK_OK(steps());
        const VirtualAddress address{last_left_.value_or(0)};
        CHECK_OK(breakpoints->insert(kind, address, 1));
        CHECK_OK(resume_all());
        auto event = TRY(execution().wait_for_stop(options_.patience));
        if (!event) {
            CHECK_OK(interrupt_and_wait());
            CHECK_OK(breakpoints->remove(kind, address, 1));
            return std::string{"not come by again at "} + hex(address);
        }
        CHECK_OK(breakpoints->remove(kind, address, 1));
        if (event->cause != StopEvent::Cause::breakpoint &&
            event->cause != StopEvent::Cause::hardware_breakpoint)
            return wrong("another cause");
        const auto pc = TRY(target_.read_registers(event->vcpu)).get(x86::rip);
        if (pc != raw(address)) return wrong("rip is " + hex(pc.value_or(0)) + ", not " + hex(address));
        return "hit at " + hex(address);
    }

    Outcome detach() {
        CHECK_OK(execution().detach());
        CHECK_OK(execution().detach());  // idempotent
        return is_running(true);
    }

    Outcome detach_running() {
        CHECK_OK(resume_all());
        CHECK_OK(execution().detach());
        return is_running(true);
    }

    Target& target_;
    ContractOptions options_;
    std::vector<ContractResult> results_;
    std::optional<std::uint64_t> last_left_;
};

}  // namespace

std::vector<ContractResult> check_target_contract(Target& target, const ContractOptions& options) {
    return Contract{target, options}.run();
}

}  // namespace exo::test
