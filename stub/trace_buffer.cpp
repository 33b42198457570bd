#include "stub/trace_buffer.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace exo::stub {
namespace {

// Of a frame's and a block's headers in the file: number and length, 'R', 'M' address length, 'V' number
// value.
constexpr std::size_t frame_header = 6;
constexpr std::size_t registers_header = 1;
constexpr std::size_t memory_header = 11;
constexpr std::size_t variable_block = 13;
constexpr std::size_t longest_block = 0xffff;  // a memory block's length has 16 bits

// In the guest's byte order.
template <class T>
void append_number(std::string& out, T value) {
    for (std::size_t i = 0; i < sizeof value; ++i)
        out += static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i));
}

}  // namespace

std::size_t TraceFrame::size() const {
    std::size_t size = frame_header + variables.size() * variable_block;
    if (registers) size += registers_header + registers->layout().size;
    for (const Memory& block : memory)
        size += block.bytes.size() + memory_header * (1 + block.bytes.size() / longest_block);
    return size;
}

std::size_t TraceFrame::read(VirtualAddress address, MutableBytes out) const {
    std::size_t done = 0;
    for (bool found = true; found && done < out.size();) {
        found = false;
        for (const Memory& block : memory) {
            const std::uint64_t offset = raw(address) + done - raw(block.address);
            if (offset >= block.bytes.size()) continue;
            const std::size_t count = std::min<std::size_t>(block.bytes.size() - offset, out.size() - done);
            std::memcpy(out.data() + done, block.bytes.data() + offset, count);
            done += count;
            found = true;
            break;
        }
    }
    return done;
}

RegisterSet TraceFrame::registers_or_pc(const RegisterLayout& layout) const {
    if (registers) return *registers;
    RegisterSet known{layout};
    known.set(layout.pc, raw(pc));
    return known;
}

void TraceFrame::append_to(std::string& file) const {
    append_number(file, static_cast<std::uint16_t>(tracepoint));
    const std::size_t length_at = file.size();
    append_number(file, std::uint32_t{0});
    if (registers) {
        file += 'R';
        const auto count = static_cast<RegisterNumber>(registers->layout().registers.size());
        for (RegisterNumber number = 0; number < count; ++number) {
            const auto bytes = registers->bytes(number);
            if (registers->available(number)) {
                file.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
            } else {
                file.append(bytes.size(), '\0');
            }
        }
    }
    for (const Memory& block : memory) {
        for (std::size_t at = 0; at < block.bytes.size(); at += longest_block) {
            const std::size_t count = std::min(longest_block, block.bytes.size() - at);
            file += 'M';
            append_number(file, raw(block.address) + at);
            append_number(file, static_cast<std::uint16_t>(count));
            file.append(reinterpret_cast<const char*>(block.bytes.data()) + at, count);
        }
    }
    for (const auto& [number, value] : variables) {
        file += 'V';
        append_number(file, static_cast<std::uint32_t>(number));
        append_number(file, value);
    }
    std::string length;
    append_number(length, static_cast<std::uint32_t>(file.size() - length_at - 4));
    file.replace(length_at, length.size(), length);
}

bool TraceBuffer::add(TraceFrame frame) {
    const std::size_t size = frame.size();
    if (size > size_ || (!circular_ && used_ + size > size_)) return false;
    make_room(size);
    file_.reset();
    used_ += size;
    ++created_;
    frames_.push_back(std::move(frame));
    return true;
}

// The oldest frames go.
void TraceBuffer::make_room(std::size_t size) {
    while (used_ + size > size_) {
        used_ -= frames_.front().size();
        frames_.pop_front();
    }
}

void TraceBuffer::clear() {
    frames_.clear();
    file_.reset();
    used_ = 0;
    created_ = 0;
}

void TraceBuffer::set_size(std::size_t size) {
    size_ = std::min(size, largest_size);
    make_room(0);
    file_.reset();
}

const std::string& TraceBuffer::as_file() {
    if (!file_) {
        file_.emplace();
        for (const TraceFrame& frame : frames_) frame.append_to(*file_);
    }
    return *file_;
}

}  // namespace exo::stub
