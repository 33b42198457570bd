// vFile: the files that the server publishes, the name of the one that is the program, and files of the
// guest.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <span>

#include "rsp/file_io.h"
#include "rsp/hex.h"
#include "rsp/stop_reply.h"
#include "stub/guest_files.h"
#include "stub/handlers/handlers.h"

namespace exo::stub::handlers {
namespace {

// Room for "F", the count and ';' beside the data in a packet; escaping is the client's to bear (gdb gives a
// reply's buffer twice its size).
constexpr std::uint64_t reply_head = 24;

rsp::FileErrno errno_of(const Error& error) {
    switch (error.code) {
        case Errc::not_found:
        case Errc::no_such_thread: return rsp::FileErrno::enoent;
        case Errc::bad_request: return rsp::FileErrno::einval;
        case Errc::denied: return rsp::FileErrno::eacces;
        default: return rsp::FileErrno::eio;
    }
}

// Why is in the log alone: the protocol has a number for it.
Reply file_failure(std::string_view name, const Error& error) {
    spdlog::info("{}: {}", name, error.message);
    return text(rsp::file_error(errno_of(error)));
}

// For bytes of the guest: what is there at this stop, or at this moment where it runs.
Result<void> see_guest_now(Session& session) {
    if (session.non_stop.stands()) return session.machine.look_for_os_once();
    session.machine.forget_memory();
    return {};
}

// What the server publishes comes first; below its own folder there is nothing else.
Result<OpenFile> find_file(Session& session, const std::string& name) {
    auto published = session.machine.published_file(name);
    if (published) return OpenFile{std::move(*published)};
    if (published.error().code != Errc::not_found || name.starts_with(published_folder)) {
        return fail(std::move(published).error());
    }
    return open_guest_file(session.machine, session.file_process, name);
}

// gdb goes on without what it cannot read of a file, and says nothing (it has no symbols then, or unwinds by
// guess).
void tell_of_absent(Session& session, const OpenFile& file, const Error& error) {
    if (error.code != Errc::bad_address || file.memory || !session.absent_files.insert(file.name).second)
        return;
    session.news.push_back(
        file.name + " is not wholly in the guest's memory (" + error.message +
        "): symbols and backtraces by it may be wrong; a copy of it helps (`set sysroot FOLDER`), or "
        "the guest reading it once");
    spdlog::warn("{}", session.news.back());
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
    const auto pid = request.annex.empty() ? static_cast<std::uint64_t>(session.current_process())
                                           : rsp::parse_hex_number(request.annex);
    if (pid != kernel_pid) {
        if (!pid || *pid > UINT32_MAX) return fail(Errc::bad_request, "malformed pid");
        const auto task = TRY(guest_task(session.machine, static_cast<std::uint32_t>(*pid)));
        const auto name = TRY(TRY(guest_processes(session.machine))->proc_link(task, "exe"));
        return text(rsp::xfer_slice(name, request.offset, request.length));
    }
    // In non-stop mode gdb does not ask for qOffsets (gdb/remote.c, start_remote_1).
    const auto file = TRY(session.machine.symbol_file(session.non_stop.on()));
    session.program_generation = session.machine.os_generation();
    return text(rsp::xfer_slice(file->path, request.offset, request.length));
}

// gdb finds by it where a program and its dynamic linker are (gdb/solib-svr4.c, svr4_exec_displacement). The
// kernel has none, which is an empty one; no reply at all would end gdb's connection.
Result<Reply> transfer_auxv(Session& session, const rsp::TransferRead& request) {
    const Thread& thread = *TRY(session.general());
    const bool kernel = thread.of_kernel() || session.machine.os() == nullptr;
    const auto auxv = kernel ? std::string{} : TRY(auxv_of(session.machine, *thread.task));
    return text(rsp::xfer_slice(auxv, request.offset, request.length));
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

// Whose names are meant from now on: 0, as the kernel, is the guest's first process.
Result<Reply> set_file_system(Session& session, std::string_view arguments) {
    const auto pid = rsp::parse_hex_number(arguments);
    if (!pid || *pid > UINT32_MAX) return text(rsp::file_error(rsp::FileErrno::einval));
    const auto process = *pid == kernel_pid ? 0 : static_cast<std::uint32_t>(*pid);
    if (process != 0) {
        const auto task = guest_task(session.machine, process);
        if (!task) return file_failure("vFile:setfs", task.error());
    }
    session.file_process = process;
    return text(rsp::file_result(std::uint64_t{0}));
}

Result<Reply> open_file(Session& session, const rsp::OpenFile& request) {
    auto file = find_file(session, request.name);
    if (!file) return file_failure(request.name, file.error());
    if (!request.reads_only()) return text(rsp::file_error(rsp::FileErrno::erofs));
    file->name = request.name;
    const auto descriptor = session.files.open(std::move(*file));
    return text(descriptor ? rsp::file_result(*descriptor) : rsp::file_error(rsp::FileErrno::emfile));
}

Result<Reply> read_file(Session& session, const rsp::ReadFile& request) {
    const OpenFile* file = session.files.find(request.descriptor);
    if (file == nullptr) return text(rsp::file_error(rsp::FileErrno::ebadf));
    if (!file->published) CHECK_OK(see_guest_now(session));
    const std::uint64_t room = session.options.packet_size - reply_head;
    std::string bytes(std::min(request.count, room), '\0');
    const auto count =
        read_open_file(session.machine, *file, request.offset, std::as_writable_bytes(std::span{bytes}));
    if (!count) {
        tell_of_absent(session, *file, count.error());
        return file_failure(file->name, count.error());
    }
    bytes.resize(*count);
    Reply reply = text(rsp::file_result(bytes));
    reply.binary = true;
    return reply;
}

Result<Reply> file_status(Session& session, const rsp::FileDescriptor& request) {
    const OpenFile* file = session.files.find(request.descriptor);
    if (file == nullptr) return text(rsp::file_error(rsp::FileErrno::ebadf));
    const auto size = size_of_open_file(session.machine, *file);
    return size ? text(rsp::file_status(*size)) : file_failure("vFile:fstat", size.error());
}

// gdb 16 asks by name before it opens.
Result<Reply> file_status_by_name(Session& session, const rsp::FileName& request) {
    const auto file = find_file(session, request.name);
    const auto size = file ? size_of_open_file(session.machine, *file) : fail(file.error());
    return size ? text(rsp::file_status(*size)) : file_failure(request.name, size.error());
}

Result<Reply> close_file(Session& session, const rsp::FileDescriptor& request) {
    return text(session.files.close(request.descriptor) ? rsp::file_result(std::uint64_t{0})
                                                        : rsp::file_error(rsp::FileErrno::ebadf));
}

// What is published is no link: EINVAL, as readlink(2) says it.
Result<Reply> read_link(Session& session, const rsp::FileName& request) {
    const auto published = session.machine.published_file(request.name);
    if (published) return text(rsp::file_error(rsp::FileErrno::einval));
    if (request.name.starts_with(published_folder)) return file_failure(request.name, published.error());
    const auto target = read_guest_link(session.machine, session.file_process, request.name);
    if (!target) return file_failure(request.name, target.error());
    Reply reply = text(rsp::file_result(std::string_view{*target}));
    reply.binary = true;
    return reply;
}

}  // namespace exo::stub::handlers
