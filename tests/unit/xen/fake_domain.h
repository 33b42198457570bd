// A domain as run control sees it through EventDomain, without a hypervisor: vCPUs that execute a few
// instructions of one byte, and make events of it as Xen does.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <poll.h>

#include <boost/json/value.hpp>

#include "backends/xen/event_domain.h"
#include "tests/support/fake_memory.h"

namespace exo::test {

// What survives a debugger: the hypervisor's state of the domain, and the guest.
struct FakeXenDomain {
    // Instructions. The operand of a store and a load is at rdi, a byte.
    static constexpr std::uint8_t nop = 0x90, int3 = 0xcc, halt = 0xf4, count = 0x40, jump = 0xeb,
                                  store = 0x88, load = 0x8a, push_flags = 0x9c, pop_flags = 0x9d,
                                  interrupt_return = 0xcf;
    static constexpr std::uint64_t ram_frames = 64;
    static constexpr std::uint64_t text = 0x1000, data = 0x8000;  // where the tests have theirs

    struct Vcpu {
        xen::HvmCpu cpu{};
        xen::ViewId view = xen::host_view;
        bool waits = false;  // for a response
        bool stepping = false;
        bool halted = false;
        std::optional<xen::HvmCpu> interrupted;
        std::optional<std::uint8_t> injected;
        std::uint32_t injected_length = 0;
    };
    struct View {
        std::map<std::uint64_t, std::uint64_t> frames;
        std::map<std::uint64_t, xen::PageAccess> access;
    };

    explicit FakeXenDomain(std::uint32_t count_of_vcpus) : vcpus(count_of_vcpus) {
        memory.add_ram(PhysicalAddress{0}, ram_frames * xen::page_bytes);
        // Where pages are added.
        memory.add_ram(PhysicalAddress{0x100000}, 16 * xen::page_bytes);
        views[xen::host_view];
        for (auto& vcpu : vcpus) vcpu.cpu.rflags = 2;
    }

    void code(std::uint64_t address, std::vector<std::uint8_t> bytes) {
        std::ranges::copy(std::as_bytes(std::span{bytes}),
                          memory.bytes(PhysicalAddress{address}, bytes.size()).begin());
    }
    std::uint8_t byte(std::uint64_t address) {
        return std::to_integer<std::uint8_t>(memory.bytes(PhysicalAddress{address}, 1)[0]);
    }

    // An interrupt is taken.
    void interrupt(std::uint32_t id, std::uint64_t handler) {
        auto& vcpu = vcpus[id];
        vcpu.interrupted = vcpu.cpu;
        vcpu.cpu.rip = handler;
        vcpu.cpu.rflags &= ~std::uint64_t{1U << 8U};
    }

    void run(int instructions) {
        for (int i = 0; i < instructions; ++i)
            for (std::uint32_t id = 0; id < vcpus.size(); ++id)
                if (pauses == 0 && !vcpus[id].waits && !vcpus[id].halted) execute(id);
    }

    FakeMemory memory;
    std::vector<Vcpu> vcpus;
    std::map<xen::ViewId, View> views;
    std::set<std::uint64_t> pages;  // added
    std::uint64_t maximum = 1000;
    int pauses = 0;
    bool enabled = false;  // the ring
    bool altp2m = false;
    bool alive = true;
    std::set<xen::EventKind> delivered;
    std::deque<xen::VmEvent> requests;
    // What came to the guest's own handlers, by vector; they return at once.
    std::map<std::uint8_t, int> exceptions;
    boost::json::value journal;

private:
    void event(std::uint32_t id, std::uint32_t reason, const xen::VmEvent& details = {}) {
        auto request = details;
        request.version = VM_EVENT_INTERFACE_VERSION;
        request.flags |= VM_EVENT_FLAG_VCPU_PAUSED;
        request.reason = reason;
        request.vcpu_id = id;
        request.data.regs.x86.rip = vcpus[id].cpu.rip;
        request.data.regs.x86.rsp = vcpus[id].cpu.rsp;
        requests.push_back(request);
        vcpus[id].waits = true;
    }

    // Whether it made an event.
    bool forbidden(std::uint32_t id, std::uint64_t address, std::uint32_t flags) {
        auto& view = views[vcpus[id].view];
        const auto found = view.access.find(address / xen::page_bytes);
        if (found != view.access.end() && !enabled) {  // there is nobody to tell
            view.access.erase(found);
            return false;
        }
        const auto access = found == view.access.end() ? xen::PageAccess::all : found->second;
        using enum xen::PageAccess;
        const bool refused = ((flags & MEM_ACCESS_X) != 0 && access == read_write) ||
                             ((flags & MEM_ACCESS_R) != 0 && access == execute) ||
                             ((flags & MEM_ACCESS_W) != 0 && (access == execute || access == read_execute));
        if (!refused) return false;
        xen::VmEvent details{};
        details.u.mem_access.gfn = address / xen::page_bytes;
        details.u.mem_access.offset = address % xen::page_bytes;
        details.u.mem_access.flags = flags;
        event(id, VM_EVENT_REASON_MEM_ACCESS, details);
        return true;
    }

    std::byte& at(std::uint32_t id, std::uint64_t address) {
        const auto& view = views[vcpus[id].view];
        const auto found = view.frames.find(address / xen::page_bytes);
        const auto frame = found == view.frames.end() ? address / xen::page_bytes : found->second;
        return memory.bytes(PhysicalAddress{frame * xen::page_bytes + address % xen::page_bytes}, 1)[0];
    }

    // Which of the four registers match.
    std::uint64_t debug_hits(const xen::HvmCpu& cpu, std::uint64_t address, std::uint64_t kind_mask) const {
        const std::array registers{cpu.dr0, cpu.dr1, cpu.dr2, cpu.dr3};
        std::uint64_t hits = 0;
        for (std::size_t i = 0; i < registers.size(); ++i) {
            const auto kind = cpu.dr7 >> (16 + 4 * i) & 3U;
            const auto length = (cpu.dr7 >> (18 + 4 * i) & 3U) + 1;
            const bool enabled_here = (cpu.dr7 >> (2 * i) & 3U) != 0 && (kind_mask >> kind & 1U) != 0;
            if (enabled_here && address >= registers.at(i) &&
                address - registers.at(i) < (length == 3 ? 8 : length))
                hits |= std::uint64_t{1} << i;
        }
        return hits;
    }

    void exception(std::uint32_t id, std::uint8_t vector, std::uint64_t length) {
        xen::VmEvent details{};
        details.u.software_breakpoint.gfn = vcpus[id].cpu.rip / xen::page_bytes;
        details.u.software_breakpoint.type = vector == 3 ? 6 : 3;
        details.u.software_breakpoint.insn_length = static_cast<std::uint32_t>(length);
        const auto kind = vector == 3 ? xen::EventKind::int3 : xen::EventKind::debug_exception;
        if (enabled && delivered.contains(kind)) {
            event(id, vector == 3 ? VM_EVENT_REASON_SOFTWARE_BREAKPOINT : VM_EVENT_REASON_DEBUG_EXCEPTION,
                  details);
        } else {
            ++exceptions[vector];
            vcpus[id].cpu.rip += length;
        }
    }

    void end_of_step(std::uint32_t id) {
        if (vcpus[id].stepping && !vcpus[id].waits && enabled && delivered.contains(xen::EventKind::step))
            event(id, VM_EVENT_REASON_SINGLESTEP);
    }

    void execute(std::uint32_t id) {
        auto& vcpu = vcpus[id];
        auto& cpu = vcpu.cpu;
        constexpr std::uint64_t resume = 1U << 16U, trap = 1U << 8U;
        if (vcpu.injected) {
            ++exceptions[*vcpu.injected];
            cpu.rip += vcpu.injected_length;
            vcpu.injected.reset();
            return end_of_step(id);
        }
        if (forbidden(id, cpu.rip, MEM_ACCESS_X)) return;
        if (const auto hits = debug_hits(cpu, cpu.rip, 1); hits != 0 && (cpu.rflags & resume) == 0) {
            cpu.dr6 |= hits;
            return exception(id, 1, 0);
        }
        const auto code = std::to_integer<std::uint8_t>(at(id, cpu.rip));
        const bool traps = (cpu.rflags & trap) != 0;
        std::uint64_t hits = 0;
        switch (code) {
            case int3: exception(id, 3, 1); return vcpu.waits ? void() : end_of_step(id);
            case halt:
                vcpu.halted = true;
                ++cpu.rip;
                break;
            case count:
                ++cpu.rax;
                ++cpu.rip;
                break;
            case jump:
                cpu.rip += 2 + static_cast<std::uint64_t>(static_cast<std::int8_t>(
                                   std::to_integer<std::uint8_t>(at(id, cpu.rip + 1))));
                break;
            case store:
                if (forbidden(id, cpu.rdi, MEM_ACCESS_W)) return;
                at(id, cpu.rdi) = static_cast<std::byte>(cpu.rax);
                hits = debug_hits(cpu, cpu.rdi, 0b1010);
                ++cpu.rip;
                break;
            case load:
                if (forbidden(id, cpu.rdi, MEM_ACCESS_R)) return;
                cpu.rbx = std::to_integer<std::uint64_t>(at(id, cpu.rdi));
                hits = debug_hits(cpu, cpu.rdi, 0b1000);
                ++cpu.rip;
                break;
            case push_flags:
                cpu.rsp -= 8;
                ++cpu.rip;
                memory.put(PhysicalAddress{cpu.rsp}, cpu.rflags);
                break;
            case pop_flags:
                std::memcpy(&cpu.rflags, memory.bytes(PhysicalAddress{cpu.rsp}, 8).data(), 8);
                cpu.rsp += 8;
                ++cpu.rip;
                break;
            case interrupt_return:  // of a handler; the flag works from the next instruction on
                cpu.rip = vcpu.interrupted->rip;
                cpu.rflags = vcpu.interrupted->rflags;
                vcpu.interrupted.reset();
                return;
            default: ++cpu.rip; break;
        }
        cpu.rflags &= ~resume;
        cpu.dr6 |= hits;
        if (hits != 0 || traps) exception(id, 1, 0);
        if (!vcpu.halted) end_of_step(id);
    }
};

// One debugger's way to it.
class FakeDomain final : public xen::EventDomain {
public:
    explicit FakeDomain(FakeXenDomain& xen) : xen_(xen) {}

    [[nodiscard]] std::string name() const override { return "domain 7 (fake)"; }
    [[nodiscard]] std::uint32_t vcpu_count() const override {
        return static_cast<std::uint32_t>(xen_.vcpus.size());
    }
    [[nodiscard]] PhysicalMemory& memory() override { return xen_.memory; }
    Result<xen::DomainLife> life() override {
        return xen_.alive && !dead ? xen::DomainLife::runs : xen::DomainLife::gone;
    }
    Result<void> begin() override { return {}; }
    void end() override {
        if (!dead) xen_.journal = xen::to_json(xen::MonitorJournal{});
    }
    Result<void> stands() override { return {}; }
    void runs() override {}

    Result<void> pause() override { return ++xen_.pauses, Result<void>{}; }
    Result<void> unpause() override { return --xen_.pauses, Result<void>{}; }
    Result<void> open_events() override {
        if (xen_.enabled) return fail(Errc::busy, "another tool has the monitor of domain 7 (fake)");
        xen_.enabled = true;
        xen_.requests.clear();
        return {};
    }
    Result<void> close_events() override {
        if (dead) return {};
        xen_.enabled = false;
        xen_.delivered.clear();
        return {};
    }
    Result<void> deliver(xen::EventKind kind, bool wanted) override {
        if (wanted == xen_.delivered.contains(kind))
            return fail(Errc::backend, "it is so already");  // EEXIST
        if (wanted)
            xen_.delivered.insert(kind);
        else
            xen_.delivered.erase(kind);
        return {};
    }
    Result<std::optional<xen::VmEvent>> next_event() override {
        if (xen_.requests.empty()) return std::optional<xen::VmEvent>{};
        const auto event = xen_.requests.front();
        xen_.requests.pop_front();
        return event;
    }
    Result<void> answer(const xen::VmEvent& response) override {
        if (response.vcpu_id >= xen_.vcpus.size()) return {};
        auto& vcpu = xen_.vcpus[response.vcpu_id];
        if (!vcpu.waits) return {};
        if ((response.flags & VM_EVENT_FLAG_ALTERNATE_P2M) != 0 && xen_.altp2m)
            vcpu.view = response.altp2m_idx;
        if ((response.flags & VM_EVENT_FLAG_VCPU_PAUSED) != 0) vcpu.waits = false;
        return {};
    }
    Result<bool> wait(int wake, std::chrono::milliseconds /*limit*/) override {
        pollfd interrupt{wake, POLLIN, 0};
        if (wake >= 0 && ::poll(&interrupt, 1, 0) > 0) return true;
        for (int i = 0; i < 100 && xen_.requests.empty(); ++i) xen_.run(1);
        return !xen_.requests.empty();
    }
    Result<void> release_vcpus() override {
        for (auto& vcpu : xen_.vcpus) vcpu.waits = false;
        return {};
    }
    Result<void> set_single_step(VcpuId vcpu, bool on) override {
        if (!given_abilities.monitor_trap) return fail(Errc::unsupported, "no monitor trap flag");
        xen_.vcpus.at(vcpu).stepping = on;
        return {};
    }
    Result<void> inject(VcpuId vcpu, std::uint8_t vector, std::uint8_t /*type*/,
                        std::uint32_t length) override {
        xen_.vcpus.at(vcpu).injected = vector;
        xen_.vcpus.at(vcpu).injected_length = length;
        return {};
    }
    Result<xen::HvmCpu> cpu(VcpuId vcpu) override { return xen_.vcpus.at(vcpu).cpu; }
    Result<void> change_cpu(VcpuId vcpu, const std::function<void(xen::HvmCpu&)>& change) override {
        change(xen_.vcpus.at(vcpu).cpu);
        return {};
    }
    Result<bool> idle(VcpuId vcpu) override { return xen_.vcpus.at(vcpu).halted; }
    Result<void> set_access(xen::ViewId view, std::uint64_t frame, xen::PageAccess access) override {
        if (!xen_.views.contains(view)) return fail(Errc::backend, "no such view");
        if (access == xen::PageAccess::all)
            xen_.views[view].access.erase(frame);
        else
            xen_.views[view].access[frame] = access;
        return {};
    }
    Result<bool> enable_views(bool on) override {
        const bool was = std::exchange(xen_.altp2m, on);
        if (!on) std::erase_if(xen_.views, [](const auto& row) { return row.first != xen::host_view; });
        return was;
    }
    Result<xen::ViewId> create_view() override {
        const auto view = static_cast<xen::ViewId>(xen_.views.rbegin()->first + 1);
        xen_.views[view];
        return view;
    }
    Result<void> destroy_view(xen::ViewId view) override {
        for (const auto& vcpu : xen_.vcpus)
            if (vcpu.view == view) return fail(Errc::busy, "a vCPU runs in it");
        xen_.views.erase(view);
        return {};
    }
    Result<void> switch_to_view(xen::ViewId view) override {
        for (auto& vcpu : xen_.vcpus) vcpu.view = view;
        return {};
    }
    Result<void> remap(xen::ViewId view, std::uint64_t frame, std::optional<std::uint64_t> other) override {
        xen_.views.at(view).access.erase(frame);
        if (other)
            xen_.views.at(view).frames[frame] = *other;
        else
            xen_.views.at(view).frames.erase(frame);
        return {};
    }
    Result<std::uint64_t> maximum_memory() override { return xen_.maximum; }
    Result<void> set_maximum_memory(std::uint64_t kib) override {
        xen_.maximum = kib;
        return {};
    }
    Result<std::uint64_t> free_frame() override { return 0x100 + xen_.pages.size(); }
    Result<void> add_page(std::uint64_t frame) override {
        xen_.pages.insert(frame);
        return {};
    }
    Result<void> write_page(std::uint64_t frame, ConstBytes content) override {
        return xen_.memory.write(PhysicalAddress{frame * xen::page_bytes}, content);
    }
    Result<void> remove_page(std::uint64_t frame) override {
        xen_.pages.erase(frame);
        return {};
    }
    Result<void> write_journal(const xen::MonitorJournal& journal) override {
        if (!dead) xen_.journal = xen::to_json(journal);
        return {};
    }

    xen::EventAbilities given_abilities{.int3 = true, .debug_exceptions = true, .monitor_trap = true};
    bool dead = false;  // its owner is killed: nothing is undone by it

private:
    FakeXenDomain& xen_;
};

}  // namespace exo::test
