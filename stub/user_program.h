// The user's own vmlinux in place of the file that is made out of guest memory: `--vmlinux FILE`. It adds
// what only DWARF has (lines, locals, inlined functions), so it must be of the very build that the guest
// runs.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "os-awareness/os.h"
#include "stub/virtual_files.h"

namespace exo::stub {

struct UserProgram {
    std::shared_ptr<const PublishedFile> file;  // published under the name that it has on the host
    std::string host_path;
    std::vector<std::byte> build_id;
};

// A file that is no ELF file of x86-64, or that has no build id, is an error that says what to do. It is not
// read into memory.
Result<UserProgram> open_user_program(const std::string& path);

// An error unless the guest runs exactly this build.
Result<void> check_is_of_guest(const UserProgram& program, os::OsAwareness& guest);

// Where published files are.
inline constexpr std::string_view published_folder = "/exogdb/";

}  // namespace exo::stub
