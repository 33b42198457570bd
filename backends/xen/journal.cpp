#include "backends/xen/journal.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <string_view>

#include "backends/host/runtime_file.h"

namespace exo::xen {
namespace json = boost::json;
namespace {

constexpr std::string_view xen_prefix = "xen-";

std::string file_of(const JournalEntry& entry) {
    return std::string{xen_prefix} + std::to_string(entry.domain) + "-" + entry.uuid + ".json";
}

template <class Number>
void take_count(const json::object& object, std::string_view name, Number& to) {
    const auto* value = object.if_contains(name);
    if (value == nullptr) return;
    boost::system::error_code error;
    if (const auto number = value->to_number<std::uint64_t>(error); !error) to = static_cast<Number>(number);
}

void take_text(const json::object& object, std::string_view name, std::string& to) {
    const auto* value = object.if_contains(name);
    if (value != nullptr && value->is_string()) to = std::string{value->get_string()};
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
                                        {"monitor", to_text(entry.monitor)}});
}

Result<JournalEntry> parse_journal(const std::string& text) {
    boost::system::error_code error;
    const auto parsed = json::parse(text, error);
    if (error || !parsed.is_object()) return fail(Errc::bad_data, "a journal that is not a JSON object");
    const auto& object = parsed.get_object();
    JournalEntry entry;
    take_text(object, "target", entry.target);
    take_text(object, "name", entry.name);
    take_text(object, "uuid", entry.uuid);
    take_count(object, "domain", entry.domain);
    take_count(object, "owner_pid", entry.owner_pid);
    take_count(object, "owner_start", entry.owner_start);
    const auto* holds = object.if_contains("holds");
    entry.holds = holds != nullptr && holds->is_bool() && holds->get_bool();
    std::string monitor;
    take_text(object, "monitor", monitor);
    if (!monitor.empty()) entry.monitor = TRY(parse_monitor_journal(monitor));
    // The uuid is part of the file's name.
    if (entry.domain == 0 || !is_uuid(entry.uuid)) return fail(Errc::bad_data, "a journal of no domain");
    return entry;
}

Result<void> write_journal(const JournalEntry& entry) {
    return write_runtime_file(file_of(entry), to_text(entry));
}

std::vector<JournalEntry> read_journals() {
    std::vector<JournalEntry> entries;
    for (const auto& file : read_runtime_files(xen_prefix))
        if (auto entry = parse_journal(file.text)) entries.push_back(std::move(*entry));
    return entries;
}

// Also what its owner was about to write when it was killed (write_runtime_file()).
void remove_journal(const JournalEntry& entry) {
    remove_runtime_file(file_of(entry) + "." + std::to_string(entry.owner_pid));
    remove_runtime_file(file_of(entry));
}

Result<FileDescriptor> lock_journal(const JournalEntry& entry, std::chrono::milliseconds limit) {
    const auto is_meant = [&](const std::string& text) -> Result<bool> {
        const auto now = TRY(parse_journal(text));
        return now.owner_pid == entry.owner_pid && now.owner_start == entry.owner_start;
    };
    return lock_runtime_file(file_of(entry), is_meant, limit);
}

}  // namespace exo::xen
