#include "backends/qemu/journal.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

namespace exo::qemu {
namespace json = boost::json;
namespace {

constexpr std::string_view prefix = "qemu-";

std::string file_name(pid_t qemu_pid) { return std::string{prefix} + std::to_string(qemu_pid) + ".json"; }

std::string text_member(const json::object& object, std::string_view name) {
    const auto* value = object.if_contains(name);
    return value != nullptr && value->is_string() ? std::string{value->get_string()} : std::string{};
}

std::uint64_t number_member(const json::object& object, std::string_view name) {
    const auto* value = object.if_contains(name);
    boost::system::error_code error;
    const auto number = value != nullptr ? value->to_number<std::uint64_t>(error) : 0;
    return error ? 0 : number;
}

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
    boost::system::error_code error;
    const auto parsed = json::parse(text, error);
    if (error || !parsed.is_object()) return fail(Errc::bad_data, "a journal that is not a JSON object");
    const auto& object = parsed.get_object();
    JournalEntry entry;
    entry.target = text_member(object, "target");
    entry.connect = text_member(object, "connect");
    entry.uuid = text_member(object, "uuid");
    entry.qemu_pid = static_cast<pid_t>(number_member(object, "qemu_pid"));
    entry.qemu_start = number_member(object, "qemu_start");
    entry.owner_pid = static_cast<pid_t>(number_member(object, "owner_pid"));
    entry.owner_start = number_member(object, "owner_start");
    const auto* running = object.if_contains("was_running");
    entry.was_running = running != nullptr && running->is_bool() && running->get_bool();
    entry.stub_path = text_member(object, "stub_path");
    entry.stub_directory = text_member(object, "stub_directory");
    entry.user_stub = text_member(object, "user_stub");
    const auto* patches = object.if_contains("patches");
    for (const auto& row : patches != nullptr && patches->is_array() ? patches->get_array() : json::array{}) {
        if (!row.is_object()) return fail(Errc::bad_data, "a journal with a malformed patch");
        entry.patches.push_back({number_member(row.get_object(), "place"),
                                 static_cast<std::uint8_t>(number_member(row.get_object(), "original"))});
    }
    if (entry.target.empty() || entry.qemu_pid <= 0)
        return fail(Errc::bad_data, "a journal without target or pid");
    return entry;
}

Result<void> write_journal(const JournalEntry& entry) {
    return write_runtime_file(file_name(entry.qemu_pid), to_text(entry));
}

std::vector<JournalEntry> read_journals(std::vector<std::string>* broken) {
    std::vector<JournalEntry> entries;
    for (const auto& file : read_runtime_files(prefix)) {
        if (auto entry = parse_journal(file.text))
            entries.push_back(std::move(*entry));
        else if (broken != nullptr)
            broken->push_back(file.path);
    }
    return entries;
}

void remove_journal(pid_t qemu_pid) { remove_runtime_file(file_name(qemu_pid)); }

Result<FileDescriptor> lock_journal(const JournalEntry& entry, std::chrono::milliseconds limit) {
    const auto is_meant = [&](const std::string& text) -> Result<bool> {
        const auto now = TRY(parse_journal(text));
        return now.owner_pid == entry.owner_pid && now.owner_start == entry.owner_start;
    };
    return lock_runtime_file(file_name(entry.qemu_pid), is_meant, limit);
}

}  // namespace exo::qemu
