#include "stub/user_program.h"

#include <filesystem>
#include <utility>

#include "os-awareness/elf/elf_file.h"
#include "rsp/hex.h"

namespace exo::stub {
namespace {

constexpr std::string_view what_is_wanted =
    "; --vmlinux wants the kernel as it was linked, with DWARF (vmlinux, not vmlinuz)";

std::string hex_of(ConstBytes bytes) { return rsp::to_hex(as_text(bytes)); }

}  // namespace

Result<UserProgram> open_user_program(const std::string& path) {
    auto content = TRY(FileContent::open(path));
    const auto read = [&](std::uint64_t offset, MutableBytes out) { return content.read(offset, out); };
    auto id = os::read_build_id(read);
    if (!id && id.error().code == Errc::not_found) {
        return fail(
            Errc::bad_data,
            path +
                " has no build id, so that nobody can tell whether it is the guest's kernel; take one "
                "that has, or give it to gdb by gdb's own command `file`");
    }
    if (!id) return fail(Errc::bad_data, path + " is " + id.error().message + std::string{what_is_wanted});
    for (auto& patch : TRY(os::patches_for_one_segment(read))) content.patch(std::move(patch));
    const auto name = std::filesystem::path{path}.filename().string();
    auto file = std::make_shared<const PublishedFile>(
        PublishedFile{std::string{published_folder} + name, std::move(content)});
    return UserProgram{std::move(file), path, std::move(*id)};
}

Result<void> check_is_of_guest(const UserProgram& program, os::OsAwareness& guest) {
    const auto theirs = guest.build_id();
    if (!theirs) {
        return fail(Errc::not_found, "cannot tell whether " + program.host_path +
                                         " is the guest's kernel: " + theirs.error().message +
                                         "; give it to gdb by gdb's own command `file`");
    }
    if (*theirs == program.build_id) return {};
    return fail(Errc::bad_data, program.host_path + " is not the guest's kernel: its build id is " +
                                    hex_of(program.build_id) + ", that of the guest (" + guest.version() +
                                    ") is " + hex_of(*theirs) +
                                    "; take the vmlinux of exactly this build, from its debug package");
}

}  // namespace exo::stub
