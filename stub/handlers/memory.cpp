// Memory, in the address space of the selected thread.
#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "rsp/hex.h"
#include "rsp/stop_reply.h"
#include "stub/handlers/handlers.h"

namespace exo::stub::handlers {
namespace {

// qSearch and qCRC read in pieces of this.
constexpr std::size_t chunk_size = 1U << 20U;
// Long replies are made in pieces of so many bytes of memory: they stay in the cache, and the client reads
// one while the next is made. It is woken for each, so they are not small; but the last ones get smaller,
// since nobody has anything else to do while the client reads the very last.
constexpr std::size_t largest_piece = 1U << 18U;
constexpr std::size_t smallest_piece = 1U << 16U;
// The kernel copies by `rep movsb`, which AMD's Zen 3 was seen to do at a third of its speed where the target
// lies 1 to 31 bytes further in its page than the source: just where malloc puts large blocks. Any other
// distance will do.
constexpr std::size_t copy_page = 4096;
constexpr std::size_t copy_distance = 256;

// What the program cannot have written since is read as it is now, as far as the range goes.
Result<std::size_t> read_read_only(Session& session, std::uint64_t address, MutableBytes out) {
    for (const auto& range : session.run_control.tracepoints.read_only()) {
        if (address < range.start || address >= range.end) continue;
        const std::size_t count = std::min<std::uint64_t>(out.size(), range.end - address);
        AddressSpace* space = TRY(session.readable_space(*TRY(session.general())));
        return space->read_some(VirtualAddress{address}, out.first(count));
    }
    return fail(Errc::bad_address, "memory at " + hex(address) + " was not collected");
}

Result<std::size_t> read_some(Session& session, std::uint64_t address, MutableBytes out) {
    if (const TraceFrame* frame = session.selected_frame()) {
        const std::size_t count = frame->read(VirtualAddress{address}, out);
        return count > 0 ? count : read_read_only(session, address, out);
    }
    if (session.physical_addresses) {
        return session.machine.memory().read_some(PhysicalAddress{address}, out);
    }
    AddressSpace* space = TRY(session.readable_space(*TRY(session.general())));
    return space->read_some(VirtualAddress{address}, out);
}

// Memory for a reply, piece by piece. It ends where it cannot be read any more: the client sees a short
// reply.
class MemoryPieces {
public:
    MemoryPieces(Session& session, std::uint64_t address, std::size_t length, bool hex)
        : session_(&session),
          address_(address),
          left_(length),
          hex_(hex),
          bytes_(std::make_unique_for_overwrite<std::byte[]>(next_size() + copy_page)) {}

    Result<std::string_view> next() {
        if (left_ == 0) return std::string_view{};
        const std::size_t want = next_size();
        std::byte* const bytes = bytes_.get() + offset_of_next();
        const std::size_t count = TRY(read_some(*session_, address_, MutableBytes{bytes, want}));
        address_ += count;
        left_ = count < want ? 0 : left_ - count;
        if (!hex_) return std::string_view{reinterpret_cast<const char*>(bytes), count};
        digits_.clear();
        rsp::append_hex(digits_, ConstBytes{bytes, count});
        return std::string_view{digits_};
    }
    [[nodiscard]] bool at_end() const { return left_ == 0; }

private:
    [[nodiscard]] std::size_t next_size() const {
        return std::min(left_, std::clamp(left_ / 2, smallest_piece, largest_piece));
    }
    [[nodiscard]] std::size_t offset_of_next() const {
        return (address_ + copy_distance - reinterpret_cast<std::uintptr_t>(bytes_.get())) % copy_page;
    }

    Session* session_;
    std::uint64_t address_;
    std::size_t left_;
    bool hex_;
    std::unique_ptr<std::byte[]> bytes_;  // for the first piece, the largest, wherever it begins
    std::string digits_;
};

// Whether memory can be read at all is known before anything is sent.
Result<Reply> memory_reply(MemoryPieces pieces, std::string_view prefix) {
    Reply reply = text(std::string{prefix});
    const std::string_view first = TRY(pieces.next());
    if (pieces.at_end()) {
        reply.payload += first;
        return reply;
    }
    // What `first` points to moves along with the pieces.
    auto rest = std::make_shared<MemoryPieces>(std::move(pieces));
    reply.more = [rest = std::move(rest), made = first]() mutable -> Reply::Piece {
        std::string_view bytes = std::exchange(made, {});
        if (bytes.empty()) bytes = rest->next().value_or(std::string_view{});
        return {bytes, bytes.empty() || rest->at_end()};
    };
    return reply;
}

Result<Reply> write(Session& session, const rsp::WriteMemory& request) {
    if (request.bytes.empty()) return ok();  // gdb's probe of X
    if (session.selected_frame() != nullptr) return fail(Errc::denied, "a trace frame cannot be written");
    if (session.physical_addresses) {
        CHECK_OK(session.machine.memory().write(PhysicalAddress{request.address}, request.bytes));
    } else {
        const Thread& thread = *TRY(session.general());
        if (!thread.of_kernel()) {
            const auto is_private = [&](PhysicalAddress page) {
                return session.machine.is_private_page(page);
            };
            CHECK_OK(TRY(session.machine.process_space(*thread.task))
                         ->check_writable(VirtualAddress{request.address}, request.bytes.size(), is_private));
        }
        AddressSpace* space = TRY(session.space(thread));
        CHECK_OK(space->write(VirtualAddress{request.address}, request.bytes));
    }
    // What is written may be page tables or task lists.
    session.machine.forget_memory();
    return ok();
}

}  // namespace

// As much as can be read, up to half a packet; an error only if the first byte cannot.
Result<Reply> read_memory(Session& session, const rsp::ReadMemory& request) {
    const std::size_t length = std::min<std::uint64_t>(request.length, session.options.packet_size / 2);
    return memory_reply({session, request.address, length, true}, {});
}

// x ADDR,LENGTH. Two dialects: gdb 16 wants `b` before the bytes; lldb to 20 probes with `x0,0`, wants OK,
// and then bare bytes. gdb is who announces swbreak.
Result<Reply> read_memory_binary(Session& session, const rsp::ReadMemory& request) {
    const bool prefixed = session.client.binary_upload || session.client.swbreak;
    if (request.length == 0 && !prefixed) return ok();
    const std::size_t length = std::min<std::uint64_t>(request.length, session.options.packet_size - 1);
    Reply reply = TRY(memory_reply({session, request.address, length, false}, prefixed ? "b" : ""));
    reply.binary = true;
    return reply;
}

Result<Reply> write_memory(Session& session, std::string_view arguments) {
    const auto request = rsp::WriteMemory::parse_hex(arguments);
    if (!request) return fail(Errc::bad_request, "malformed memory write");
    return write(session, *request);
}

Result<Reply> write_memory_binary(Session& session, std::string_view arguments) {
    const auto request = rsp::WriteMemory::parse_binary(arguments);
    if (!request) return fail(Errc::bad_request, "malformed memory write");
    return write(session, *request);
}

// qSearch:memory:ADDR;LENGTH;PATTERN   `1,ADDR` or `0`. Memory that cannot be read ends the search, as gdb's
// own search does (gdb/target.c simple_search_memory).
Result<Reply> search_memory(Session& session, const rsp::SearchMemory& request) {
    if (request.pattern.empty()) return fail(Errc::bad_request, "empty search pattern");
    std::string window;
    std::uint64_t base = request.address;  // address of window[0]
    std::uint64_t left = request.length;
    std::vector<std::byte> chunk(chunk_size);
    while (left > 0) {
        const std::size_t want = std::min<std::uint64_t>(left, chunk_size);
        const auto count = read_some(session, base + window.size(), MutableBytes{chunk}.first(want));
        if (!count) {
            if (base == request.address && window.empty()) return fail(count.error());
            break;
        }
        window.append(reinterpret_cast<const char*>(chunk.data()), *count);
        if (const auto at = window.find(request.pattern); at != std::string::npos) {
            std::string reply = "1,";
            rsp::append_hex_number(reply, base + at);
            return text(std::move(reply));
        }
        left -= *count;
        const std::size_t keep = std::min(window.size(), request.pattern.size() - 1);
        base += window.size() - keep;
        window.erase(0, window.size() - keep);
    }
    return text("0");
}

// qCRC:ADDR,LENGTH   for compare-sections.
Result<Reply> checksum(Session& session, const rsp::Checksum& request) {
    std::uint32_t crc = 0xffffffff;
    std::vector<std::byte> chunk(chunk_size);
    for (std::uint64_t done = 0; done < request.length;) {
        const std::size_t want = std::min<std::uint64_t>(request.length - done, chunk_size);
        const std::size_t count =
            TRY(read_some(session, request.address + done, MutableBytes{chunk}.first(want)));
        crc = rsp::crc32(crc, {reinterpret_cast<const char*>(chunk.data()), count});
        done += count;
    }
    std::string reply = "C";
    rsp::append_hex_number(reply, crc);
    return text(std::move(reply));
}

// QEMU's extension, which pwndbg and gdb-pt-dump use to walk page tables.
Result<Reply> set_physical_mode(Session& session, std::string_view arguments) {
    if (arguments != "0" && arguments != "1") return fail(Errc::bad_request, "PhyMemMode is 0 or 1");
    session.physical_addresses = arguments == "1";
    return ok();
}

Result<Reply> query_physical_mode(Session& session, std::string_view /*arguments*/) {
    return text(session.physical_addresses ? "1" : "0");
}

}  // namespace exo::stub::handlers
