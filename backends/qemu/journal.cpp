#include "backends/qemu/journal.h"

#include "backends/host/journal_file.h"

namespace exo::qemu {
namespace json = boost::json;
using journal::take;
namespace {

constexpr std::string_view prefix = "qemu-";

std::string file_name(pid_t qemu_pid) { return std::string{prefix} + std::to_string(qemu_pid) + ".json"; }

}  // namespace

bool JournalEntry::owner_alive() const { return same_process(owner_pid, owner_start); }
bool JournalEntry::qemu_alive() const { return same_process(qemu_pid, qemu_start); }
bool JournalEntry::is_of(const Process& process) const {
    return qemu_pid == process.pid() && qemu_start == process.start_time();
}

std::string to_text(const JournalEntry& entry) {
    json::array patches;
    for (const auto& patch : entry.patches)
        patches.push_back(json::object{{"place", patch.place}, {"original", patch.original}});
    return json::serialize(json::object{{"target", entry.target},
                                        {"connect", entry.connect},
                                        {"uuid", entry.uuid},
                                        {"qemu_pid", entry.qemu_pid},
                                        {"qemu_start", entry.qemu_start},
                                        {"owner_pid", entry.owner_pid},
                                        {"owner_start", entry.owner_start},
                                        {"was_running", entry.was_running},
                                        {"stub_path", entry.stub_path},
                                        {"stub_directory", entry.stub_directory},
                                        {"user_stub", entry.user_stub},
                                        {"patches", std::move(patches)}});
}

Result<JournalEntry> parse_journal(const std::string& text) {
    const auto object = TRY(journal::parse_object(text));
    JournalEntry entry;
    take(object, "target", entry.target);
    take(object, "connect", entry.connect);
    take(object, "uuid", entry.uuid);
    take(object, "qemu_pid", entry.qemu_pid);
    take(object, "qemu_start", entry.qemu_start);
    take(object, "owner_pid", entry.owner_pid);
    take(object, "owner_start", entry.owner_start);
    take(object, "was_running", entry.was_running);
    take(object, "stub_path", entry.stub_path);
    take(object, "stub_directory", entry.stub_directory);
    take(object, "user_stub", entry.user_stub);
    const auto* patches = object.if_contains("patches");
    for (const auto& row : patches != nullptr && patches->is_array() ? patches->get_array() : json::array{}) {
        if (!row.is_object()) return fail(Errc::bad_data, "a journal with a malformed patch");
        auto& patch = entry.patches.emplace_back();
        take(row.get_object(), "place", patch.place);
        take(row.get_object(), "original", patch.original);
    }
    if (entry.target.empty() || entry.qemu_pid <= 0)
        return fail(Errc::bad_data, "a journal without target or pid");
    return entry;
}

Result<void> write_journal(const JournalEntry& entry) {
    return write_runtime_file(file_name(entry.qemu_pid), to_text(entry));
}

std::vector<JournalEntry> read_journals(std::vector<std::string>* broken) {
    return journal::read_all(prefix, &parse_journal, broken);
}

void remove_journal(pid_t qemu_pid) { remove_runtime_file(file_name(qemu_pid)); }

Result<FileDescriptor> lock_journal(const JournalEntry& entry, std::chrono::milliseconds limit) {
    return journal::lock(file_name(entry.qemu_pid), entry, &parse_journal, limit);
}

}  // namespace exo::qemu
