#include "backends/xen/journal.h"

#include <string_view>

#include "backends/host/journal_file.h"

namespace exo::xen {
namespace json = boost::json;
using journal::take;
namespace {

constexpr std::string_view xen_prefix = "xen-";

std::string file_of(const JournalEntry& entry) {
    return std::string{xen_prefix} + std::to_string(entry.domain) + "-" + entry.uuid + ".json";
}

bool is_uuid(std::string_view text) {
    return text.size() == 36 && text.find_first_not_of("0123456789abcdef-") == std::string_view::npos;
}

}  // namespace

bool JournalEntry::owner_alive() const { return same_process(owner_pid, owner_start); }

std::string to_text(const JournalEntry& entry) {
    return json::serialize(json::object{{"target", entry.target},
                                        {"name", entry.name},
                                        {"domain", entry.domain},
                                        {"uuid", entry.uuid},
                                        {"owner_pid", entry.owner_pid},
                                        {"owner_start", entry.owner_start},
                                        {"holds", entry.holds},
                                        {"monitor", to_json(entry.monitor)}});
}

Result<JournalEntry> parse_journal(const std::string& text) {
    const auto object = TRY(journal::parse_object(text));
    JournalEntry entry;
    take(object, "target", entry.target);
    take(object, "name", entry.name);
    take(object, "uuid", entry.uuid);
    take(object, "domain", entry.domain);
    take(object, "owner_pid", entry.owner_pid);
    take(object, "owner_start", entry.owner_start);
    take(object, "holds", entry.holds);
    if (const auto* monitor = object.if_contains("monitor"))
        entry.monitor = TRY(parse_monitor_journal(*monitor));
    // The uuid is part of the file's name.
    if (entry.domain == 0 || !is_uuid(entry.uuid)) return fail(Errc::bad_data, "a journal of no domain");
    return entry;
}

Result<void> write_journal(const JournalEntry& entry) {
    return write_runtime_file(file_of(entry), to_text(entry));
}

std::vector<JournalEntry> read_journals() { return journal::read_all(xen_prefix, &parse_journal); }

void remove_journal(const JournalEntry& entry) { remove_runtime_file(file_of(entry)); }

Result<FileDescriptor> lock_journal(const JournalEntry& entry, std::chrono::milliseconds limit) {
    return journal::lock(file_of(entry), entry, &parse_journal, limit);
}

}  // namespace exo::xen
