// What a task that runs on no CPU left on its stack: its registers, and where it sleeps.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "backends/api/registers.h"
#include "os-awareness/linux/kernel_image.h"
#include "os-awareness/linux/struct_layout.h"
#include "os-awareness/linux/tasks.h"

namespace exo::os {

class SavedFrames {
public:
    // All must outlive this.
    SavedFrames(KernelImage& image, const StructLayout& layout);

    // The callee-saved registers, rip and rsp as they are when the task has been switched to; fs_base and
    // k_gs_base of a user task. bad_data when the stack was freed or holds no such frame.
    Result<RegisterSet> registers(const TaskRecord& task, std::uint64_t stack_size,
                                  const RegisterLayout& register_layout);

    // The first return address on the saved stack that is not in the scheduler or a lock: 0 if there is
    // none in its first KiB. Found without unwinding, so that a left-over of an earlier call can be taken
    // for one.
    std::uint64_t wchan(const TaskRecord& task, std::uint64_t stack_size);

private:
    struct Range {
        std::uint64_t begin = 0, end = 0;
        [[nodiscard]] bool contains(std::uint64_t address) const { return address >= begin && address < end; }
    };
    [[nodiscard]] Range range(std::string_view begin, std::string_view end) const;
    [[nodiscard]] Result<void> check_stack(const TaskRecord& task, std::uint64_t stack_size) const;
    [[nodiscard]] bool follows_call(std::uint64_t address);

    KernelImage* image_;
    const StructLayout* layout_;
    Range text_, scheduler_, locks_;
    std::unordered_map<std::uint64_t, bool> calls_;  // what follows_call() found
};

}  // namespace exo::os
