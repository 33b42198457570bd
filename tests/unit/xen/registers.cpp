#include "backends/xen/registers.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "backends/arch/x86_64.h"
#include "backends/xen/hvm_context.h"

using namespace exo;
using namespace exo::xen;

namespace {

void append(HvmContext& context, unsigned type, unsigned instance, ConstBytes content) {
    const hvm_save_descriptor head{static_cast<std::uint16_t>(type), static_cast<std::uint16_t>(instance),
                                   static_cast<std::uint32_t>(content.size())};
    const auto bytes = std::as_bytes(std::span{&head, 1});
    context.insert(context.end(), bytes.begin(), bytes.end());
    context.insert(context.end(), content.begin(), content.end());
}

constexpr std::array<std::byte, 3> content{std::byte{1}, std::byte{2}, std::byte{3}};
constexpr std::array<std::byte, 2> other{std::byte{4}, std::byte{5}};

HvmContext example_context() {
    HvmContext context;
    append(context, HVM_SAVE_CODE(HEADER), 0, other);
    append(context, HVM_SAVE_CODE(CPU), 0, other);
    append(context, HVM_SAVE_CODE(CPU), 1, content);
    append(context, HVM_SAVE_CODE(END), 0, {});
    append(context, HVM_SAVE_CODE(CPU), 2, content);
    return context;
}

}  // namespace

TEST_CASE("xen: records of a context") {
    const auto context = example_context();
    const auto found = find_record(context, HVM_SAVE_CODE(CPU), 1);
    REQUIRE(found);
    CHECK(std::ranges::equal(*found, content));
    CHECK_FALSE(find_record(context, CPU_XSAVE_CODE, 0));
    CHECK_FALSE(find_record(context, HVM_SAVE_CODE(CPU), 2));  // behind the end
    CHECK_FALSE(find_record({}, HVM_SAVE_CODE(CPU), 0));
    // Cut anywhere, there is no record that is not whole.
    for (std::size_t size = 0; size < context.size(); ++size) {
        const auto part = find_record(ConstBytes{context}.first(size), HVM_SAVE_CODE(CPU), 1);
        CHECK((!part || part->size() == content.size()));
    }
    auto lying = context;
    const std::uint32_t length = 0xfffffff0;
    std::memcpy(lying.data() + offsetof(hvm_save_descriptor, length), &length, sizeof length);
    CHECK_FALSE(find_record(lying, HVM_SAVE_CODE(CPU), 1));
}

TEST_CASE("xen: what is loaded has the records of all vCPUs, one of them changed") {
    constexpr auto types = std::to_array<std::uint16_t>({HVM_SAVE_CODE(CPU)});
    auto from = HvmContext{};
    append(from, HVM_SAVE_CODE(HEADER), 0, other);
    append(from, HVM_SAVE_CODE(LAPIC), 0, other);
    append(from, HVM_SAVE_CODE(CPU), 0, other);
    append(from, HVM_SAVE_CODE(CPU), 1, content);
    append(from, HVM_SAVE_CODE(END), 0, {});
    const auto made =
        for_loading(from, types, [](std::uint16_t, std::uint16_t instance, MutableBytes record) {
            if (instance == 1) record[0] = std::byte{9};
        });
    REQUIRE(made);
    CHECK(std::ranges::equal(*find_record(*made, HVM_SAVE_CODE(HEADER), 0), other));
    CHECK(std::ranges::equal(*find_record(*made, HVM_SAVE_CODE(CPU), 0), other));
    const auto changed = *find_record(*made, HVM_SAVE_CODE(CPU), 1);
    CHECK(changed.size() == content.size());
    CHECK(changed[0] == std::byte{9});
    CHECK_FALSE(find_record(*made, HVM_SAVE_CODE(LAPIC), 0));
    CHECK(made->size() == from.size() - sizeof(hvm_save_descriptor) - other.size());
    CHECK_FALSE(for_loading({}, types, {}));
}

TEST_CASE("xen: registers of an HVM guest") {
    RegisterSet registers{x86::layout()};
    hvm_hw_cpu cpu{};
    cpu.rip = 0xffffffff81000000;
    cpu.r15 = 15;
    cpu.cs_sel = 0x10;
    cpu.gs_base = 0xffff888000000000;
    cpu.shadow_gs = 0x7f00;
    cpu.msr_efer = 0xd01;
    cpu.msr_lstar = 0xffffffff81c00000;
    fill_from_hvm(registers, cpu);
    CHECK(registers.get(x86::rip) == 0xffffffff81000000);
    CHECK(registers.get(x86::cs) == 0x10);
    CHECK(registers.get(x86::k_gs_base) == 0x7f00);
    CHECK(registers.get(x86::efer) == 0xd01);
    CHECK_FALSE(registers.available(x86::cr8));
    CHECK(msr_of(cpu, 0xc0000082) == 0xffffffff81c00000);
    CHECK_FALSE(msr_of(cpu, 0x10));
    registers.set(x86::cr3, 0x1234000);
    CHECK(put_into_hvm(cpu, registers, x86::cr3));
    CHECK(cpu.cr3 == 0x1234000);
    CHECK_FALSE(put_into_hvm(cpu, registers, x86::st0));
    CHECK_FALSE(is_general(x86::cr3));
    CHECK(is_general(x86::eflags));
    // Each but the FPU's and cr8 has its place.
    for (RegisterNumber number = 0; number < x86::register_count; ++number)
        if (number != x86::cr8)
            CHECK_MESSAGE(put_into_hvm(cpu, registers, number) != x86::is_in_xsave(number),
                          x86::layout().registers[number].name);
}

TEST_CASE("xen: a vCPU that nobody has started is as after INIT") {
    RegisterSet registers{x86::layout()};
    fill_as_after_init(registers);
    CHECK(registers.get(x86::rip) == 0xfff0);
    CHECK(registers.get(x86::cs_base) == 0xffff0000);
    CHECK(x86::paging_mode(registers) == x86::PagingMode::none);
}

TEST_CASE("xen: registers of a PV guest") {
    vcpu_guest_context_t context{};
    context.user_regs.rip = 0xffffffff81000000;
    context.user_regs.rsp = 0xffffffff82003e00;
    context.user_regs.cs = 0xe033;
    context.gs_base_kernel = 0xffff888000000000;
    context.gs_base_user = 0x7f00;
    context.ctrlreg[3] = 0x1234000;
    context.flags = VGCF_in_kernel;
    RegisterSet registers{x86::layout()};
    fill_from_pv(registers, context);
    CHECK_FALSE(x86::in_user_mode(registers));
    CHECK(registers.get(x86::gs_base) == 0xffff888000000000);
    CHECK(registers.get(x86::k_gs_base) == 0x7f00);
    CHECK(x86::paging_mode(registers) == x86::PagingMode::levels4);
    CHECK_FALSE(registers.available(x86::gdt_base));
    // As it was told it can be given back.
    CHECK(put_into_pv(context, registers, x86::cs));
    CHECK(context.user_regs.cs == 0xe033);
    registers.set(x86::gs_base, 0x1000);
    CHECK(put_into_pv(context, registers, x86::gs_base));
    CHECK(context.gs_base_kernel == 0x1000);
    registers.set(x86::rip, 0x10);
    CHECK(put_into_pv(context, registers, x86::rip));
    CHECK(context.user_regs.rip == 0x10);
    CHECK_FALSE(put_into_pv(context, registers, x86::cr3));
    context.flags = 0;
    fill_from_pv(registers, context);
    CHECK(x86::in_user_mode(registers));
    CHECK(registers.get(x86::gs_base) == 0x7f00);
    CHECK(registers.get(x86::k_gs_base) == 0x1000);
}

TEST_CASE("xen: an FPU that was not used has its initial values") {
    RegisterSet registers{x86::layout()};
    std::array<std::byte, x86::fxsave_size> fxsave{};
    fxsave.fill(std::byte{0x55});
    x86::fill_from_xsave(registers, as_xsave_area(fxsave.data(), false), false);
    CHECK(registers.get(x86::fctrl) == 0x37f);
    CHECK(registers.get(x86::mxcsr) == 0x1f80);
    CHECK(registers.get(x86::ftag) == 0xffff);
    CHECK(registers.get(x86::xmm0) == 0);
    x86::fill_from_xsave(registers, as_xsave_area(fxsave.data(), true), false);
    CHECK(registers.get(x86::xmm0) == 0x5555555555555555);
    CHECK_FALSE(registers.available(x86::ymm0h));
}
