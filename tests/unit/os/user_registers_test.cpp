#include "os-awareness/linux/user_registers.h"

#include <doctest/doctest.h>

#include <array>
#include <cstring>

#include "backends/arch/x86_64.h"
#include "os-awareness/user_space.h"
#include "tests/support/btf_writer.h"
#include "tests/support/fake_memory.h"

namespace {

using namespace exo;
using namespace exo::test;

constexpr std::uint64_t base = 0xffff888000000000;
constexpr std::uint64_t ram = 0x10000;
constexpr std::uint64_t task = base + 0x1000, fpstate = base + 0x2000, stack = base + 0x4000,
                        tss = base + 0x9000;
constexpr std::uint64_t stack_size = 0x4000, entry_stack = base + 0xb000;
constexpr std::uint64_t top = stack + stack_size, words = 21;
constexpr std::uint32_t fpu_at = 0x100, area_at = 64;

class KernelHalf final : public AddressSpace {
public:
    explicit KernelHalf(PhysicalMemory& memory) : memory_(&memory) {}
    Result<Translation> translate(VirtualAddress address) override {
        if (raw(address) < base || raw(address) >= base + ram) return fail(Errc::bad_address, "not mapped");
        return Translation{PhysicalAddress{raw(address) - base}, 4096, true, true, true};
    }
    [[nodiscard]] PhysicalMemory& physical() override { return *memory_; }

private:
    PhysicalMemory* memory_;
};

// `behind_task`: struct fpu is not in thread_struct, but behind the task_struct.
os::Btf types(bool behind_task) {
    BtfWriter writer;
    const auto u32 = writer.integer("unsigned int", 4);
    const auto u64 = writer.integer("unsigned long", 8);
    const auto state = writer.structure("fpstate", 1024, {{"size", u32, 0}, {"regs", u64, area_at}});
    const auto fpu =
        writer.structure("fpu", 64, {{"last_cpu", u32, 0}, {"fpstate", writer.pointer(state), 8}});
    const auto thread = behind_task
                            ? writer.structure("thread_struct", 64, {{"fsbase", u64, 0}})
                            : writer.structure("thread_struct", 256, {{"fsbase", u64, 0}, {"fpu", fpu, 64}});
    writer.structure("task_struct", behind_task ? fpu_at : 512, {{"thread", thread, fpu_at - 64}});
    return *os::Btf::parse(writer.blob());
}

struct Fixture {
    explicit Fixture(bool behind_task = false) : btf(types(behind_task)) {
        memory.add_ram(PhysicalAddress{0}, ram);
        record.address = task;
        record.tid = 7;
        record.stack = stack;
        layout.task.fsbase = {fpu_at - 64, 8};
        put(task + fpu_at - 64, std::uint64_t{0x7f00});
        put(task + fpu_at, std::uint32_t{1});
        put(task + fpu_at + 8, fpstate);
        put(tss + 4, entry_stack);
        vcpu.set(x86::cs, 0x10);
        vcpu.set(x86::tr_base, tss);
        vcpu.set(x86::cr3, 0x5000);
        vcpu.set(x86::gs_base, base);
        vcpu.set(x86::k_gs_base, 0x1234);
        for (RegisterNumber i = x86::rax; i <= x86::r15; ++i) vcpu.set(i, 0x100U + i);
    }
    template <class T>
    void put(std::uint64_t address, const T& value) {
        memory.put(PhysicalAddress{address - base}, value);
    }
    [[nodiscard]] std::uint64_t slot(std::uint64_t number) const { return frame + 8 * number; }
    // Word n has the value n, but for what makes it a frame of user mode.
    void put_frame(std::uint64_t padding = 0) {
        frame = top - padding - words * 8;
        for (std::uint64_t i = 0; i < words; ++i) put(slot(i), i);
        put(slot(15), std::uint64_t{34});
        put(slot(16), std::uint64_t{0x401000});
        put(slot(17), std::uint64_t{0x33});
        put(slot(19), std::uint64_t{0x7ffe0000});
        put(slot(20), std::uint64_t{0x2b});
    }
    Result<os::UserRegisters> read(bool on_vcpu, std::optional<std::uint64_t> owner = {}, bool xsave = true) {
        os::UserRegisterReader reader{space, &btf, layout};
        return reader.read(record, {.stack_size = stack_size,
                                    .vcpu = on_vcpu ? &vcpu : nullptr,
                                    .xsave = xsave,
                                    .fpu_owner = owner});
    }

    FakeMemory memory;
    KernelHalf space{memory};
    os::Btf btf;
    os::StructLayout layout;
    os::TaskRecord record;
    RegisterSet vcpu{x86::layout()};
    std::uint64_t frame = 0;
};

using Kind = os::RegisterPlace::Kind;

}  // namespace

TEST_CASE("a task that sleeps has its user registers at the top of its kernel stack, below any padding") {
    for (const std::uint64_t padding : {0, 16}) {
        CAPTURE(padding);
        Fixture f;
        f.put_frame(padding);
        const auto user = f.read(false);
        REQUIRE(user);
        CHECK(user->values.get(x86::r15) == 0);
        CHECK(user->values.get(x86::rdi) == 14);
        CHECK(user->values.get(x86::orig_rax) == 34);
        CHECK(user->values.get(x86::rip) == 0x401000);
        CHECK(user->values.get(x86::rsp) == 0x7ffe0000);
        CHECK(user->values.get(x86::cs) == 0x33);
        CHECK(user->values.get(x86::fs_base) == 0x7f00);
        CHECK_FALSE(user->values.available(x86::gs_base));  // no type says where it is
        CHECK_FALSE(user->values.available(x86::cr3));
        CHECK(user->places[x86::rip].kind == Kind::memory);
        CHECK(raw(user->places[x86::rip].address) == f.slot(16));
    }
}

TEST_CASE("a stack without a frame of user mode gives an error, not numbers") {
    Fixture f;
    f.put_frame();
    f.put(f.slot(17), std::uint64_t{0x10});  // cs of the kernel
    CHECK(f.read(false).error().code == Errc::bad_data);
    f.put_frame();
    f.put(f.slot(16), std::uint64_t{base});  // and of its code
    CHECK(f.read(false).error().code == Errc::bad_data);
    f.record.stack = 0;
    CHECK(f.read(false).error().code == Errc::bad_data);
}

TEST_CASE("on a vCPU in user mode they are the vCPU's") {
    Fixture f;
    f.vcpu.set(x86::cs, 0x33);
    f.vcpu.set(x86::rip, 0x402000);
    const auto user = f.read(true);
    REQUIRE(user);
    CHECK(user->values.get(x86::rip) == 0x402000);
    CHECK(user->values.get(x86::orig_rax) == ~std::uint64_t{0});
    CHECK(user->places[x86::rip].kind == Kind::vcpu);
    CHECK(user->places[x86::orig_rax].kind == Kind::nowhere);
    CHECK_FALSE(user->values.available(x86::cr3));
}

TEST_CASE("at the border of a system call rip and the flags are in rcx and r11") {
    Fixture f;
    f.vcpu.set(x86::rsp, 0x7ffe1000);
    const auto user = f.read(true);
    REQUIRE(user);
    CHECK(user->values.get(x86::rip) == 0x100 + x86::rcx);
    CHECK(user->values.get(x86::eflags) == 0x100 + x86::r11);
    CHECK(user->values.get(x86::rsp) == 0x7ffe1000);
    CHECK(user->values.get(x86::gs_base) == 0x1234);
    CHECK_FALSE(user->values.available(x86::orig_rax));
    CHECK(user->places[x86::rip].number == x86::rcx);
    f.vcpu.set(x86::rsp, 0x5000);  // what the entry code is about to write to CR3
    CHECK_FALSE(f.read(true)->values.available(x86::rsp));
}

TEST_CASE("what the entry code has not pushed yet is in the vCPU's registers") {
    Fixture f;
    f.put_frame();
    f.vcpu.set(x86::rsp, f.slot(10));
    const auto user = f.read(true);
    REQUIRE(user);
    CHECK(user->values.get(x86::rax) == 10);              // pushed
    CHECK(user->values.get(x86::r8) == 0x100 + x86::r8);  // not yet
    CHECK(user->places[x86::r8].kind == Kind::vcpu);
    CHECK(user->values.get(x86::rip) == 0x401000);
}

TEST_CASE("behind an exception the CPU's own frame tells, on the stack by which it came") {
    Fixture f;
    f.put_frame();
    const std::array<std::uint64_t, 5> hardware{0x403000, 0x33, 0x202, 0x7ffe2000, 0x2b};
    f.put(entry_stack - 40, hardware);
    f.vcpu.set(x86::rsp, entry_stack - 48);  // with an error code
    auto user = f.read(true);
    REQUIRE(user);
    CHECK(user->values.get(x86::rip) == 0x403000);
    CHECK(user->values.get(x86::rsp) == 0x7ffe2000);
    CHECK(user->values.get(x86::rbx) == 0x100 + x86::rbx);
    CHECK(user->values.get(x86::orig_rax) == ~std::uint64_t{0});
    f.vcpu.set(x86::rsp, entry_stack - 120);  // more has been pushed since: who knows what is changed
    user = f.read(true);
    REQUIRE(user);
    CHECK(user->values.get(x86::rip) == 0x403000);
    CHECK_FALSE(user->values.available(x86::rbx));
}

TEST_CASE("the FPU's registers: saved ones in their format, the vCPU's while they are this task's") {
    for (const bool behind_task : {false, true}) {
        CAPTURE(behind_task);
        Fixture f{behind_task};
        f.put_frame();
        const std::uint64_t area = fpstate + area_at;
        f.put(area, std::uint16_t{0x27f});
        f.put(area + 4, std::uint8_t{0x80});                  // one register is in use: physical 7
        f.put(area + 2, std::uint16_t{0x3800});               // on top
        f.put(area + 32, std::uint64_t{0x8000000000000000});  // 1.0
        f.put(area + 40, std::uint16_t{0x3fff});
        f.put(area + 24, std::uint32_t{0x1fa0});
        f.put(area + 160 + 16, std::uint64_t{77});  // xmm1
        f.put(area + 576, std::uint64_t{88});       // ymm0h
        f.put(area + 512, std::uint64_t{3});        // x87 and SSE
        const auto user = f.read(false);
        REQUIRE(user);
        CHECK(user->values.get(x86::fctrl) == 0x27f);
        CHECK(user->values.get(x86::ftag) == 0x3fff);
        CHECK(user->values.get(x86::mxcsr) == 0x1fa0);
        CHECK(user->values.get(x86::xmm0 + 1) == 77);
        CHECK(user->values.get(x86::ymm0h) == 0);  // in its initial state
        CHECK(user->places[x86::ymm0h].kind == Kind::nowhere);
        f.put(area + 512, std::uint64_t{4});
        CHECK(f.read(false)->values.get(x86::ymm0h) == 88);
        CHECK(f.read(false)->values.get(x86::xmm0 + 1) == 0);
        CHECK(f.read(false)->values.get(x86::fctrl) == 0x37f);
        CHECK(f.read(false, {}, false)->values.get(x86::xmm0 + 1) == 77);  // FXSAVE has no header
        CHECK_FALSE(f.read(false, {}, false)->values.available(x86::ymm0h));

        f.vcpu.set(x86::rsp, f.frame - 64);
        f.vcpu.set(x86::xmm0 + 1, 99);
        f.record.cpu = 1;
        CHECK_FALSE(f.read(true)->values.available(x86::xmm0 + 1));  // nobody knows whose
        CHECK(f.read(true, task + fpu_at)->values.get(x86::xmm0 + 1) == 99);
        f.record.cpu = 0;  // it was loaded on another CPU, and has been changed in memory since
        CHECK(f.read(true, task + fpu_at)->values.get(x86::xmm0 + 1) == 0);
        CHECK(f.read(true, task)->values.get(x86::xmm0 + 1) == 0);
    }
}

namespace {

// Three pages at 0x1000: one that can be written, one that cannot, one of the kernel's; and all of the upper
// half.
class ThreePages final : public AddressSpace {
public:
    explicit ThreePages(PhysicalMemory& memory) : memory_(&memory) {}
    Result<Translation> translate(VirtualAddress address) override {
        const auto page = raw(address) >> 12U;
        if (page == 0 || (page > 3 && raw(address) < base)) return fail(Errc::bad_address, "not mapped");
        return Translation{PhysicalAddress{raw(address) & 0xffff}, 4096, page == 1, page < 3, true};
    }
    [[nodiscard]] PhysicalMemory& physical() override { return *memory_; }

private:
    PhysicalMemory* memory_;
};

}  // namespace

TEST_CASE("a process reaches its own pages alone, and writes those that it can write") {
    FakeMemory memory;
    memory.add_ram(PhysicalAddress{0}, ram);
    ThreePages whole{memory};
    os::UserSpace space{whole};
    CHECK(space.translate(VirtualAddress{base}).error().code == Errc::bad_address);
    CHECK(space.translate(VirtualAddress{0x3000}).error().code == Errc::bad_address);
    CHECK(space.translate(VirtualAddress{0x2000}).has_value());
    CHECK_FALSE(space.next_mapped(VirtualAddress{base}).has_value());
    bool own = false;
    const auto check = [&](std::uint64_t address, std::uint64_t size) {
        return space.check_writable(VirtualAddress{address}, size, [&](PhysicalAddress) { return own; });
    };
    CHECK(check(0x1ff8, 8).has_value());
    CHECK(check(0x1ff8, 9).error().code == Errc::denied);
    CHECK(check(0x2000, 1).error().code == Errc::denied);
    CHECK(check(0x3000, 1).has_value());  // the write says what is wrong
    own = true;
    CHECK(check(0x1ff8, 9).has_value());
}
