#include "backends/qemu/stub_control.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>

namespace exo::qemu {
namespace json = boost::json;
namespace {

constexpr std::string_view disconnected = "disconnected:";

std::string text_member(const json::value& row, std::string_view name) {
    const auto* object = row.if_object();
    const auto* value = object != nullptr ? object->if_contains(name) : nullptr;
    return value != nullptr && value->is_string() ? std::string{value->get_string()} : std::string{};
}

// An HMP string argument, in quotes (QEMU monitor/hmp.c get_str).
std::string quoted(std::string_view text) {
    std::string out = "\"";
    for (const char character : text) {
        if (character == '"' || character == '\\') out += '\\';
        out += character;
    }
    return out + '"';
}

// In QEMU's option strings a comma is doubled.
std::string option_value(std::string_view text) {
    std::string out;
    for (const char character : text) {
        out += character;
        if (character == ',') out += ',';
    }
    return out;
}

std::string one_line(std::string text) {
    while (text.ends_with('\n')) text.pop_back();
    std::replace(text.begin(), text.end(), '\n', ' ');
    return text;
}

Result<bool> try_start(Monitor& monitor, const StubPlace& place, std::string& refusal) {
    const auto text =
        TRY(monitor.hmp("gdbserver " + quoted("unix:" + option_value(place.path) + ",server=on,wait=off")));
    if (TRY(query_chardevs(monitor)).stub) return true;
    refusal = one_line(text);
    return false;
}

// The effective user of QEMU: the second number of "Uid:" (proc(5)).
std::optional<uid_t> user_of(const Process& process) {
    const auto users = status_field(process.pid(), "Uid");
    if (!users) return std::nullopt;
    const auto start = users->find_first_of("\t ");
    if (start == std::string::npos) return std::nullopt;
    uid_t user = 0;
    const auto parsed = std::from_chars(users->data() + start + 1, users->data() + users->size(), user);
    return parsed.ec == std::errc{} ? std::optional{user} : std::nullopt;
}

Result<StubPlace> make_private_place(const Process& process) {
    std::string directory = "/tmp/exogdb-XXXXXX";
    if (::mkdtemp(directory.data()) == nullptr)
        return fail(Errc::backend, "directory " + directory + ": " + std::strerror(errno));
    const auto user = user_of(process);
    if (user && *user != ::geteuid() && ::chown(directory.c_str(), *user, static_cast<gid_t>(-1)) != 0) {
        const int error = errno;
        ::rmdir(directory.c_str());
        return fail(Errc::denied,
                    "directory " + directory + " cannot be given to QEMU's user: " + std::strerror(error));
    }
    return StubPlace{directory + "/gdb.sock", directory};
}

}  // namespace

// A socket that has no client is "disconnected:" and its address; one that has goes on with " <-> PEER"
// (QEMU chardev/char-socket.c, qemu_chr_compute_filename).
std::optional<StubDevice> parse_stub_device(std::string_view label, std::string_view filename) {
    if (label != "gdb") return std::nullopt;
    StubDevice stub;
    stub.connected = !filename.starts_with(disconnected);
    if (!stub.connected) filename.remove_prefix(disconnected.size());
    filename = filename.substr(0, filename.find(" <-> "));
    stub.device = std::string{filename};
    // QEMU would wait for a client, and the guest with it.
    if (stub.device.find(",server") != std::string::npos && stub.device.find(",wait") == std::string::npos)
        stub.device += ",wait=off";
    return stub;
}

std::string socket_directory(std::string_view filename) {
    if (filename.starts_with(disconnected)) filename.remove_prefix(disconnected.size());
    constexpr std::string_view unix_socket = "unix:/";
    const auto options = filename.find(",server");
    if (!filename.starts_with(unix_socket) || options == std::string_view::npos) return {};
    const auto path = filename.substr(unix_socket.size() - 1, options - unix_socket.size() + 1);
    return std::string{path.substr(0, std::max<std::size_t>(path.rfind('/'), 1))};
}

Result<Chardevs> query_chardevs(Monitor& monitor) {
    const auto answer = TRY(monitor.execute("query-chardev"));
    const auto* rows = answer.if_array();
    if (rows == nullptr) return fail(Errc::backend, "QEMU's list of chardevs is not a list");
    Chardevs chardevs;
    for (const auto& row : *rows) {
        const auto label = text_member(row, "label");
        const auto filename = text_member(row, "filename");
        if (auto stub = parse_stub_device(label, filename)) {
            chardevs.stub = std::move(stub);
            continue;
        }
        auto directory = socket_directory(filename);
        if (directory.empty()) continue;
        // libvirt's monitor is "charmonitor"; a QMP socket of the command line "compat_monitorN".
        const bool monitors = label.find("monitor") != std::string::npos;
        auto& list = chardevs.socket_directories;
        list.insert(monitors ? list.begin() : list.end(), std::move(directory));
    }
    return chardevs;
}

std::optional<Error> client_of_stub(const Chardevs& chardevs) {
    if (!chardevs.stub || !chardevs.stub->connected) return std::nullopt;
    const std::string& device = chardevs.stub->device;  // ADDRESS[,OPTION=VALUE…]
    return Error{Errc::busy, "QEMU already has a gdb client, on " + device.substr(0, device.find(',')) +
                                 "; disconnect it"};
}

Result<RunState> query_run_state(Monitor& monitor) {
    const auto answer = TRY(monitor.execute("query-status"));
    const auto* object = answer.if_object();
    const auto* running = object != nullptr ? object->if_contains("running") : nullptr;
    if (running == nullptr || !running->is_bool())
        return fail(Errc::backend, "QEMU's answer to query-status has no member running");
    return RunState{text_member(answer, "status"), running->get_bool()};
}

Result<StubPlace> start_stub(Monitor& monitor, const Process& process, const Chardevs& chardevs,
                             const std::function<Result<void>(const StubPlace&)>& announce) {
    std::string refusal;
    if (!chardevs.socket_directories.empty()) {
        StubPlace place{chardevs.socket_directories.front() + "/exogdb.sock", {}};
        CHECK_OK(announce(place));
        if (TRY(try_start(monitor, place, refusal))) return place;
    }
    auto place = TRY(make_private_place(process));
    CHECK_OK(announce(place));
    if (TRY(try_start(monitor, place, refusal))) return place;
    static_cast<void>(stop_stub(monitor, place.path, place.directory));
    return fail(Errc::backend, "QEMU cannot open its gdb stub: " + refusal);
}

Result<void> stop_stub(Monitor& monitor, const std::string& path, const std::string& directory) {
    const auto text = TRY(monitor.hmp("gdbserver none"));
    if (TRY(query_chardevs(monitor)).stub)
        return fail(Errc::backend, "QEMU does not close its gdb stub: " + one_line(text));
    if (!path.empty()) ::unlink(path.c_str());  // QEMU does it too
    if (!directory.empty()) ::rmdir(directory.c_str());
    return {};
}

Result<void> restore_user_stub(Monitor& monitor, const std::string& device) {
    if (device.empty()) return {};
    const auto text = TRY(monitor.hmp("gdbserver " + quoted(device)));
    if (!TRY(query_chardevs(monitor)).stub)
        return fail(Errc::backend,
                    "QEMU does not open the user's own gdb stub " + device + " again: " + one_line(text));
    return {};
}

}  // namespace exo::qemu
