#include "os-awareness/linux/saved_frame.h"

#include <algorithm>
#include <array>

namespace exo::os {
namespace {

constexpr std::size_t wchan_bytes = 1024;
constexpr std::size_t max_calls = 1U << 16;

struct SavedRegister {
    Field (*field)(const StructLayout&);
    RegisterNumber number;
};

// clang-format off
constexpr SavedRegister saved_registers[] = {
    {[](const StructLayout& l) { return l.frame.r15; }, x86::r15},
    {[](const StructLayout& l) { return l.frame.r14; }, x86::r14},
    {[](const StructLayout& l) { return l.frame.r13; }, x86::r13},
    {[](const StructLayout& l) { return l.frame.r12; }, x86::r12},
    {[](const StructLayout& l) { return l.frame.bx; }, x86::rbx},
    {[](const StructLayout& l) { return l.frame.bp; }, x86::rbp},
    {[](const StructLayout& l) { return l.frame.flags; }, x86::eflags},
};
// clang-format on

}  // namespace

SavedFrames::SavedFrames(KernelImage& image, const StructLayout& layout)
    : image_(&image),
      layout_(&layout),
      text_(range("_stext", "_etext")),
      scheduler_(range("__sched_text_start", "__sched_text_end")),
      locks_(range("__lock_text_start", "__lock_text_end")) {
    if (text_.end == 0) text_ = {raw(image.start), raw(image.end)};
}

SavedFrames::Range SavedFrames::range(std::string_view begin, std::string_view end) const {
    const auto from = image_->symbols.find(begin);
    const auto to = image_->symbols.find(end);
    return from && to && *from < *to ? Range{raw(*from), raw(*to)} : Range{};
}

Result<void> SavedFrames::check_stack(const TaskRecord& task, std::uint64_t stack_size) const {
    const auto where = "task " + std::to_string(task.tid) + " (" + task.comm + ")";
    if (layout_->frame.size == 0) {
        return fail(Errc::unsupported, where + ": the kernel does not tell what it saves of a task");
    }
    if (task.stack == 0) {
        return fail(Errc::bad_data, where + " has exited and its kernel stack is freed: no registers");
    }
    // Below the frame there is nothing, above it at least the return address's caller.
    if (task.sp < task.stack || task.sp - task.stack > stack_size - layout_->frame.size) {
        return fail(Errc::bad_data, where + ": saved stack pointer " + hex(task.sp) +
                                        " is not in its stack at " + hex(task.stack));
    }
    return {};
}

Result<RegisterSet> SavedFrames::registers(const TaskRecord& task, std::uint64_t stack_size,
                                           const RegisterLayout& register_layout) {
    CHECK_OK(check_stack(task, stack_size));
    std::vector<std::byte> frame(layout_->frame.size);
    CHECK_OK(image_->space->read(VirtualAddress{task.sp}, frame));
    // In the scheduler, or ret_from_fork if it never ran yet.
    const auto rip = layout_->frame.ret_addr.in(frame).value_or(0);
    if (!text_.contains(rip)) {
        return fail(Errc::bad_data, "task " + std::to_string(task.tid) + " (" + task.comm +
                                        "): its saved frame returns to " + hex(rip) +
                                        ", which is not kernel code");
    }
    RegisterSet registers{register_layout};
    registers.set(x86::rip, rip);
    registers.set(x86::rsp, task.sp + frame.size());
    for (const auto& saved : saved_registers) {
        if (const auto value = saved.field(*layout_).in(frame)) registers.set(saved.number, *value);
    }
    // The kernel does not use fs. Its own gs_base depends on where the task will run; the user's is
    // swapped out. A kernel thread has what was there.
    if (!task.kernel_thread()) {
        if (layout_->task.fsbase) registers.set(x86::fs_base, task.fsbase);
        if (layout_->task.gsbase) registers.set(x86::k_gs_base, task.gsbase);
    }
    return registers;
}

bool SavedFrames::follows_call(std::uint64_t address) {
    if (const auto known = calls_.find(address); known != calls_.end()) return known->second;
    std::array<std::uint8_t, 7> code{};
    const auto read =
        image_->space->read(VirtualAddress{address - code.size()}, std::as_writable_bytes(std::span{code}));
    // call rel32; call r/m64: opcode ff /2, of 2, 3, 6 or 7 bytes (Intel SDM vol. 2A, CALL).
    const auto indirect = [&](std::size_t length) {
        return code.at(code.size() - length) == 0xff && ((code.at(code.size() - length + 1) >> 3) & 7) == 2;
    };
    const bool result = read && (code[2] == 0xe8 || indirect(2) || indirect(3) || indirect(6) || indirect(7));
    if (calls_.size() >= max_calls) calls_.clear();
    calls_.emplace(address, result);
    return result;
}

std::uint64_t SavedFrames::wchan(const TaskRecord& task, std::uint64_t stack_size) {
    if (!check_stack(task, stack_size)) return 0;
    std::array<std::uint64_t, wchan_bytes / 8> words{};
    const auto room = std::min<std::uint64_t>(task.stack + stack_size - task.sp, wchan_bytes);
    const auto got = image_->space->read_some(VirtualAddress{task.sp},
                                              std::as_writable_bytes(std::span{words}).first(room));
    const auto count = got.value_or(0) / 8;
    const auto first = layout_->frame.ret_addr.offset / 8;
    if (first >= count || !text_.contains(words.at(first))) return 0;
    for (auto i = first; i < count; ++i) {
        const auto word = words.at(i);
        if (!text_.contains(word) || scheduler_.contains(word) || locks_.contains(word)) continue;
        if (follows_call(word)) return word;
    }
    return 0;
}

}  // namespace exo::os
