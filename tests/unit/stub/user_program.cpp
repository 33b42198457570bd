#include "stub/user_program.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "os-awareness/elf/byte_buffer.h"
#include "os-awareness/elf/elf_writer.h"
#include "os-awareness/elf/format.h"
#include "tests/support/fake_machine.h"

using namespace exo;
using namespace exo::stub;
using exo::test::FakeMachine;

namespace {

constexpr std::array<std::uint8_t, 4> program_id{0xde, 0xad, 0xbe, 0xef};

std::vector<std::byte> id_bytes(std::initializer_list<int> values) {
    std::vector<std::byte> bytes;
    for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
    return bytes;
}

std::vector<std::byte> elf_with_build_id(ConstBytes id) {
    os::ByteBuffer note;
    if (!id.empty()) {
        note.u32(4);
        note.u32(static_cast<std::uint32_t>(id.size()));
        note.u32(os::elf::note_gnu_build_id);
        note.text("GNU");
        for (const auto byte : id) note.put(byte);
    }
    os::ElfWriter file;
    file.add({.name = ".text", .type = os::elf::type_progbits, .content = os::content_of(note.bytes())});
    if (!id.empty()) {
        file.add({.name = ".notes",
                  .type = os::elf::type_note,
                  .align = 4,
                  .content = os::content_of(note.bytes())});
    }
    os::VectorSink sink;
    REQUIRE(file.write(sink));
    return sink.content;
}

// A file of the host, while it lives.
class HostFile {
public:
    explicit HostFile(ConstBytes content) {
        std::string folder = (std::filesystem::temp_directory_path() / "exogdb-test-XXXXXX").string();
        REQUIRE(::mkdtemp(folder.data()) != nullptr);
        folder_ = folder;
        std::ofstream{path(), std::ios::binary} << as_text(content);
    }
    ~HostFile() { std::filesystem::remove_all(folder_); }
    HostFile(const HostFile&) = delete;
    HostFile& operator=(const HostFile&) = delete;
    [[nodiscard]] std::string path() const { return folder_ + "/vmlinux-own"; }

private:
    std::string folder_;
};

std::string refusal(ConstBytes content) {
    const HostFile file{content};
    const auto program = open_user_program(file.path());
    if (program) return "taken";
    CHECK(program.error().code != Errc::bad_request);  // not wrong usage: exit status 1
    CHECK(program.error().message.starts_with(file.path()));
    return program.error().message.substr(file.path().size());
}

}  // namespace

TEST_CASE("user program: its build id, its own name, and its bytes where they are asked for") {
    const auto elf = elf_with_build_id(std::as_bytes(std::span{program_id}));
    const HostFile host{elf};
    const auto program = open_user_program(host.path());
    REQUIRE(program);
    CHECK(program->build_id == id_bytes({0xde, 0xad, 0xbe, 0xef}));
    CHECK(program->file->path == "/exogdb/vmlinux-own");
    CHECK(program->file->content.size() == elf.size());
    std::array<std::byte, 4> magic{};
    CHECK(program->file->content.read(0, magic) == 4U);
    CHECK(as_text(magic) ==
          "\x7f"
          "ELF");
    CHECK(program->file->content.read(elf.size(), magic) == 0U);
}

TEST_CASE("user program: what is refused, and with which words") {
    const std::string_view text =
        "MZ, and then what a boot loader wants: no ELF file is like this one, is it?!";
    CHECK(refusal(std::as_bytes(std::span{text})) ==
          " is no ELF file; --vmlinux wants the kernel as it was linked, with DWARF (vmlinux, not vmlinuz)");
    CHECK(refusal({}).starts_with(" is no ELF file; "));
    CHECK(refusal(elf_with_build_id({})).starts_with(" has no build id, so that nobody can tell whether"));
    auto other = elf_with_build_id(std::as_bytes(std::span{program_id}));
    other.at(18) = std::byte{183};  // EM_AARCH64
    CHECK(refusal(other).starts_with(" is an ELF file for another machine than x86-64; "));
    // Cut off, and headers that lie.
    const auto whole = elf_with_build_id(std::as_bytes(std::span{program_id}));
    for (std::size_t size = 0; size + 1 < whole.size(); size += 7) {
        const auto why = refusal(ConstBytes{whole}.first(size));
        CHECK(why.starts_with(size < 64 ? " is no ELF file" : " is an ELF file that is cut off"));
    }
    auto odd = whole;
    odd.at(58) = std::byte{1};  // e_shentsize
    CHECK(refusal(odd).starts_with(" is an ELF file with headers of unknown size"));

    const auto folder = open_user_program("/");
    REQUIRE_FALSE(folder);
    CHECK(folder.error().message == "/ is not a regular file");
    const auto none = open_user_program("/no/such/vmlinux");
    REQUIRE_FALSE(none);
    CHECK(none.error().message == "cannot open /no/such/vmlinux: No such file or directory");
}

TEST_CASE("machine: the user's program while the guest runs that build, the made one otherwise") {
    FakeMachine fake;
    fake.add_task(1, "init", 0);
    fake.kernel.build_id = id_bytes({0xde, 0xad, 0xbe, 0xef});
    Machine& machine = *fake.machine;
    REQUIRE(machine.look());
    const HostFile host{elf_with_build_id(std::as_bytes(std::span{program_id}))};
    auto program = open_user_program(host.path());
    REQUIRE(program);
    CHECK(check_is_of_guest(*program, *machine.os()));
    machine.set_program(std::move(*program));
    CHECK((*machine.symbol_file())->path == "/exogdb/vmlinux-own");
    CHECK((*machine.published_file("/exogdb/vmlinux-own"))->content.size() > 64);
    // Who has the made one's name still gets that one.
    CHECK((*machine.published_file("/exogdb/vmlinux-0.0.0-fake"))->content.size() ==
          fake.kernel.symbol_file.size());
    // A debugger that does not move the program gets neither of them.
    fake.kernel.slide = 0x1c000000;
    const std::string loaded = "/exogdb/0x1c000000/vmlinux-0.0.0-fake";
    CHECK_FALSE(machine.published_file("/exogdb/0x1c000001/vmlinux-0.0.0-fake"));
    CHECK((*machine.symbol_file(true))->path == loaded);
    CHECK((*machine.published_file(loaded))->content.size() ==
          fake.kernel.symbol_file.size() + std::string_view{", moved by 0x1c000000"}.size());

    // Reset into another kernel.
    fake.kernel.present = false;
    REQUIRE(machine.look());
    CHECK_FALSE(machine.published_file("/exogdb/vmlinux-own"));
    fake.kernel.present = true;
    fake.kernel.build_id = id_bytes({1, 2, 3, 4});
    REQUIRE(machine.look());
    CHECK((*machine.symbol_file())->path == "/exogdb/vmlinux-0.0.0-fake");
    CHECK_FALSE(machine.published_file("/exogdb/vmlinux-own"));
}

TEST_CASE("user program: of another build, or of a guest that does not say") {
    FakeMachine fake;
    fake.add_task(1, "init", 0);
    REQUIRE(fake.machine->look());
    os::OsAwareness& guest = *fake.machine->os();
    const HostFile host{elf_with_build_id(std::as_bytes(std::span{program_id}))};
    const auto program = open_user_program(host.path());
    REQUIRE(program);
    const auto unknown = check_is_of_guest(*program, guest);
    REQUIRE_FALSE(unknown);
    CHECK(unknown.error().message.starts_with("cannot tell whether " + host.path() +
                                              " is the guest's kernel: "));
    fake.kernel.build_id = id_bytes({1, 2, 3, 4});
    const auto different = check_is_of_guest(*program, guest);
    REQUIRE_FALSE(different);
    CHECK(different.error().message ==
          host.path() +
              " is not the guest's kernel: its build id is deadbeef, that of the "
              "guest (0.0.0-fake) is 01020304; take the vmlinux of exactly this "
              "build, from its debug package");
}
