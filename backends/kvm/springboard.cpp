#include "backends/kvm/springboard.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>

#include "backends/host/file_descriptor.h"

namespace exo::kvm {
namespace {

constexpr std::uint64_t board_page = 4096;
constexpr std::uint64_t record_stride = 512;
constexpr std::uint64_t mailbox_in_record = 256;
static_assert(sizeof(ThreadRecord) <= mailbox_in_record);
static_assert(mailbox_in_record + sizeof(Mailbox) <= record_stride);
// The offsets in the code below.
static_assert(offsetof(Mailbox, done) == 4 && offsetof(Mailbox, count) == 8 &&
              offsetof(Mailbox, asleep) == 12 && offsetof(Mailbox, calls) == 16);
static_assert(offsetof(CallRequest, a) == 8 && offsetof(CallRequest, c) == 24);
static_assert(offsetof(CallRequest, result) == 32 && sizeof(CallRequest) == 40);

constexpr std::uint64_t after_offset = 0x02;
constexpr std::uint64_t teller_offset = 0x10;
constexpr std::uint64_t teller_after_offset = 0x73;
constexpr std::uint64_t name_offset = 0xa0;  // "exogdb", of the memfd

// clang-format off
//  00          syscall
//  02          mov rbx, rax
//  05  again:  mov eax, SYS_pause; syscall; jmp again
//  10  teller: mov r15d, 100
//  16  look:   mov eax, [r12]; cmp eax, r13d; jne work                         posted != done?
//  1f          dec r15d; js sleep
//  24          mov eax, SYS_sched_yield; syscall; jmp look                     what comes soon is not slept for
//  2d  sleep:  mov r14d, 1; xchg [r12+12], r14d                                asleep = 1
//  38          mov eax, SYS_futex; mov rdi, r12; xor esi, esi; mov edx, r13d   FUTEX_WAIT while posted == done
//  45          xor r10d, r10d; syscall
//  4a          mov dword [r12+12], 0; jmp teller                               asleep = 0
//  55  work:   mov r13d, eax; lea rbx, [r12+16]; mov r14d, [r12+8]
//  62  next:   mov rax, [rbx]; mov rdi, [rbx+8]; mov rsi, [rbx+16]; mov rdx, [rbx+24]
//  71          syscall
//  73          mov [rbx+32], rax; add rbx, 40; dec r14d; jnz next
//  80          mov [r12+4], r13d                                               done = posted
//  85          mov eax, SYS_futex; lea rdi, [r12+4]; mov esi, 1; mov edx, 1    FUTEX_WAKE
//  99          syscall; jmp teller
constexpr auto board_code = std::to_array<std::uint64_t>({
    0x0022b8c38948050f, 0x0000f7eb050f0000, 0x8b4100000064bf41, 0x413675e839442404,
    0x000018b80978cfff, 0x01be41e9eb050f00, 0x0c24748745000000, 0xe7894c000000cab8,
    0xd23145ea8944f631, 0x000c2444c741050f, 0xc58941bbeb000000, 0x748b4510245c8d49,
    0x7b8b48038b480824, 0x538b4810738b4808, 0x4820438948050f18, 0xe275ceff4128c383,
    0x00cab804246c8945, 0xbe04247c8d490000, 0x000001ba00000001, 0xffffff70e9050f00,
    0x00006264676f7865,  // name_offset
});
// clang-format on

std::uint64_t round_up(std::uint64_t size) { return (size + board_page - 1) & ~(board_page - 1); }

// A system call of the VMM's thread that has to succeed. `what` as in "cannot …".
Result<std::uint64_t> must(TracedThread& thread, const RemoteMemory& memory, const char* what,
                           std::int64_t number, std::span<const std::uint64_t> arguments) {
    const auto result = TRY(call_in_place(thread, memory, number, arguments));
    if (result >= 0 || result < -static_cast<std::int64_t>(board_page))
        return static_cast<std::uint64_t>(result);
    return fail(Errc::denied, std::string{"the VMM cannot "} + what + ": " +
                                  std::strerror(static_cast<int>(-result)) +
                                  "; its sandbox (seccomp, SELinux) does not let it");
}

Result<std::uint64_t> map_code(TracedThread& thread, const RemoteMemory& memory) {
    const auto code =
        TRY(must(thread, memory, "map a page of code", SYS_mmap,
                 std::to_array<std::uint64_t>({0, Springboard::code_size, PROT_READ | PROT_EXEC,
                                               MAP_PRIVATE | MAP_ANONYMOUS, ~std::uint64_t{0}, 0})));
    for (std::size_t i = 0; i < board_code.size(); ++i)
        CHECK_OK(thread.poke(code + i * sizeof board_code[i], board_code.at(i)));
    return code;
}

// Of the file `fd` in the VMM: both mappings.
Result<std::uint64_t> map_data(TracedThread& thread, const RemoteMemory& memory, std::uint64_t fd,
                               std::uint64_t size, MappedPages& view) {
    CHECK_OK(
        must(thread, memory, "size shared memory", SYS_ftruncate, std::to_array<std::uint64_t>({fd, size})));
    const std::string path = "/proc/" + std::to_string(thread.tid()) + "/fd/" + std::to_string(fd);
    const FileDescriptor file{::open(path.c_str(), O_RDWR | O_CLOEXEC)};
    if (!file.valid()) return fail(Errc::denied, "opening " + path + ": " + std::strerror(errno));
    view = TRY(MappedPages::map(file.get(), size));
    return must(thread, memory, "map shared memory", SYS_mmap,
                std::to_array<std::uint64_t>({0, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0}));
}

}  // namespace

std::uint64_t Springboard::data_size(std::uint32_t records) {
    return round_up(records * (record_stride + argument_size));
}

std::uint64_t Springboard::after() const { return code + after_offset; }
std::uint64_t Springboard::teller() const { return code + teller_offset; }
std::uint64_t Springboard::teller_after() const { return code + teller_after_offset; }

std::uint64_t Springboard::record_offset(std::uint32_t index) { return index * record_stride; }

std::uint64_t Springboard::mailbox_offset(std::uint32_t index) {
    return record_offset(index) + mailbox_in_record;
}

std::uint64_t Springboard::argument_offset(std::uint32_t index) const {
    return records * record_stride + index * argument_size;
}

std::span<const std::uint64_t> springboard_code() { return board_code; }

LastRun last_run(const ThreadRegisters& registers, const Springboard& board, const Mailbox& box, int fd) {
    const auto is_run = [&](std::uint64_t a, std::uint64_t b) {
        return static_cast<int>(a) == fd && static_cast<std::uint32_t>(b) == KVM_RUN;
    };
    if (registers.rip < board.teller()) {  // in pause(2), or just before
        const auto result = registers.rip == board.after() ? registers.rax : registers.rbx;
        return {is_run(registers.rdi, registers.rsi), static_cast<std::int64_t>(result)};
    }
    const auto& first = box.calls[0];
    if (first.number != SYS_ioctl || !is_run(first.a, first.b)) return {};
    if (first.result != CallRequest::unfinished) return {true, first.result};
    const bool just_behind = registers.rip == board.teller_after();
    return {true, just_behind ? static_cast<std::int64_t>(registers.rax) : -EINTR};
}

Result<Springboard> build_springboard(TracedThread& thread, const RemoteMemory& memory, std::uint32_t records,
                                      MappedPages& view) {
    Springboard board;
    board.records = records;
    const auto size = Springboard::data_size(records);
    const auto code = TRY(map_code(thread, memory));
    const auto give_up = [&](Error error) {
        static_cast<void>(call_in_place(thread, memory, SYS_munmap,
                                        std::to_array<std::uint64_t>({code, Springboard::code_size})));
        return fail(std::move(error));
    };
    const auto fd = must(thread, memory, "make shared memory", SYS_memfd_create,
                         std::to_array<std::uint64_t>({code + name_offset, MFD_CLOEXEC}));
    if (!fd) return give_up(fd.error());
    const auto data = map_data(thread, memory, *fd, size, view);
    const auto closed = call_in_place(thread, memory, SYS_close, std::to_array<std::uint64_t>({*fd}));
    if (!data) return give_up(data.error());
    if (!closed) return give_up(closed.error());
    board.code = code;
    board.data = *data;
    for (std::uint32_t i = 0; i < records; ++i) CHECK_OK(memory.put(board.record(i), ThreadRecord{}));
    return board;
}

Result<void> remove_springboard(TracedThread& thread, const RemoteMemory& memory, const Springboard& board) {
    for (const auto& [address, size] : std::to_array<std::pair<std::uint64_t, std::uint64_t>>(
             {{board.code, Springboard::code_size}, {board.data, Springboard::data_size(board.records)}}))
        CHECK_OK(call_in_place(thread, memory, SYS_munmap, std::to_array<std::uint64_t>({address, size})));
    return {};
}

}  // namespace exo::kvm
