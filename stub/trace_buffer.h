// What tracepoints have collected: frames in a buffer of bounded size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "backends/api/memory.h"
#include "backends/api/registers.h"
#include "backends/api/result.h"

namespace exo::stub {

struct TraceFrame {
    struct Memory {
        VirtualAddress address{};
        std::vector<std::byte> bytes;
    };
    std::uint64_t tracepoint = 0;
    VirtualAddress pc{};
    std::optional<RegisterSet> registers;
    std::vector<Memory> memory;
    std::map<std::uint64_t, std::uint64_t> variables;

    // What it takes in the buffer.
    [[nodiscard]] std::size_t size() const;
    // As many of the bytes at `address` as were collected; 0 where not even the first was.
    std::size_t read(VirtualAddress address, MutableBytes out) const;
    // Those collected; else none but the program counter, which a tracepoint's address tells.
    [[nodiscard]] RegisterSet registers_or_pc(const RegisterLayout& layout) const;
    // As a trace file has it (GDB manual, "Trace File Format"): 'R', 'M' and 'V' blocks. Registers that were
    // unavailable are zeros there: the format has no way to say so.
    void append_to(std::string& file) const;
};

class TraceBuffer {
public:
    static constexpr std::size_t default_size = 5U << 20U;  // gdbserver's
    static constexpr std::size_t largest_size = 256U << 20U;

    // False: there is no room, and the buffer is not circular.
    [[nodiscard]] bool add(TraceFrame frame);
    void clear();
    void set_size(std::size_t size);
    void set_circular(bool circular) { circular_ = circular; }

    [[nodiscard]] const std::deque<TraceFrame>& frames() const { return frames_; }
    [[nodiscard]] std::uint64_t created() const { return created_; }
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] std::size_t used() const { return used_; }
    [[nodiscard]] bool circular() const { return circular_; }
    // All frames, for a trace file. Made when it is first asked for after a change.
    const std::string& as_file();

private:
    void make_room(std::size_t size);

    std::deque<TraceFrame> frames_;
    std::uint64_t created_ = 0;
    std::size_t size_ = default_size;
    std::size_t used_ = 0;
    bool circular_ = false;
    std::optional<std::string> file_;
};

}  // namespace exo::stub
