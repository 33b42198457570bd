// vFile: the files that the server publishes, and the name of the one that is the program.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <span>

#include "rsp/file_io.h"
#include "rsp/hex.h"
#include "rsp/stop_reply.h"
#include "stub/handlers/handlers.h"

namespace exo::stub::handlers {
namespace {

// Room for "F", the count and ';' beside the data in a packet; escaping is the client's to bear (gdb gives a
// reply's buffer twice its size).
constexpr std::uint64_t reply_head = 24;

bool is_kernel(std::string_view annex) {
    const auto pid = rsp::parse_hex_number(annex);
    return annex.empty() || pid == kernel_pid;
}

void append_library(Session& session, const std::string& path, VirtualAddress segment) {
    session.told_modules->push_back(path);
    session.libraries_xml += "<library name=\"";
    rsp::append_xml(session.libraries_xml, path);
    session.libraries_xml += "\"><segment address=\"" + hex(segment) + "\"/></library>";
}

}  // namespace

// Annex: a pid, "" is the current process. gdb asks at connect, unless its user has given it a program.
Result<Reply> transfer_exec_file(Session& session, const rsp::TransferRead& request) {
    if (!is_kernel(request.annex))
        return fail(Errc::no_such_thread, "no process " + std::string{request.annex});
    // In non-stop mode gdb does not ask for qOffsets (gdb/remote.c, start_remote_1).
    const auto file = TRY(session.machine.symbol_file(session.non_stop.on()));
    session.program_generation = session.machine.os_generation();
    return text(rsp::xfer_slice(file->path, request.offset, request.length));
}

// The kernel's modules. Each file is linked where the module is, and the segment's address is the one in the
// file: nothing moves (gdb/solib-target.c, solib_target_relocate_section_addresses). The kernel itself is one
// where it has appeared since the client asked for the program, which clients do once.
Result<Reply> transfer_libraries(Session& session, const rsp::TransferRead& request) {
    if (request.offset == 0) {
        CHECK_OK(session.machine.look_once());
        const auto& found = session.machine.modules();
        for (const auto& problem : found.problems) spdlog::info("{}", problem);
        session.told_modules.emplace();
        session.libraries_xml = "<library-list>";
        if (session.kernel_is_library()) {
            const auto kernel = session.machine.kernel_library();
            if (kernel) append_library(session, kernel->path, kernel->segment);
            if (!kernel) spdlog::warn("no symbols of the kernel: {}", kernel.error().message);
        }
        for (const auto& module : found.modules)
            append_library(session, Machine::module_path(module), module.memory.front().start);
        session.libraries_xml += "</library-list>";
    }
    return text(rsp::xfer_slice(session.libraries_xml, request.offset, request.length));
}

// Whose file names: there is one name space, whatever the process.
Result<Reply> set_file_system(Session& /*session*/, std::string_view /*arguments*/) {
    return text(rsp::file_result(std::uint64_t{0}));
}

Result<Reply> open_file(Session& session, const rsp::OpenFile& request) {
    auto file = session.machine.published_file(request.name);
    if (!file) return text(rsp::file_error(rsp::FileErrno::enoent));
    if (!request.reads_only()) return text(rsp::file_error(rsp::FileErrno::erofs));
    const auto descriptor = session.files.open(std::move(*file));
    return text(descriptor ? rsp::file_result(*descriptor) : rsp::file_error(rsp::FileErrno::emfile));
}

Result<Reply> read_file(Session& session, const rsp::ReadFile& request) {
    const PublishedFile* file = session.files.find(request.descriptor);
    if (file == nullptr) return text(rsp::file_error(rsp::FileErrno::ebadf));
    const std::uint64_t room = session.options.packet_size - reply_head;
    std::string bytes(std::min(request.count, room), '\0');
    const auto count = file->content.read(request.offset, std::as_writable_bytes(std::span{bytes}));
    if (!count) return text(rsp::file_error(rsp::FileErrno::eio));
    bytes.resize(*count);
    Reply reply = text(rsp::file_result(bytes));
    reply.binary = true;
    return reply;
}

Result<Reply> file_status(Session& session, const rsp::FileDescriptor& request) {
    const PublishedFile* file = session.files.find(request.descriptor);
    return text(file != nullptr ? rsp::file_status(file->content.size())
                                : rsp::file_error(rsp::FileErrno::ebadf));
}

// gdb 16 asks by name before it opens.
Result<Reply> file_status_by_name(Session& session, const rsp::FileName& request) {
    const auto file = session.machine.published_file(request.name);
    if (!file) return text(rsp::file_error(rsp::FileErrno::enoent));
    return text(rsp::file_status((*file)->content.size()));
}

Result<Reply> close_file(Session& session, const rsp::FileDescriptor& request) {
    return text(session.files.close(request.descriptor) ? rsp::file_result(std::uint64_t{0})
                                                        : rsp::file_error(rsp::FileErrno::ebadf));
}

// Nothing that is published is a link: EINVAL, as readlink(2) says it.
Result<Reply> read_link(Session& session, const rsp::FileName& request) {
    const bool known = session.machine.published_file(request.name).has_value();
    return text(rsp::file_error(known ? rsp::FileErrno::einval : rsp::FileErrno::enoent));
}

}  // namespace exo::stub::handlers
