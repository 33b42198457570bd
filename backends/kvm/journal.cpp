#include "backends/kvm/journal.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <string_view>

#include "backends/host/runtime_file.h"

namespace exo::kvm {
namespace json = boost::json;
namespace {

constexpr std::string_view journal_prefix = "kvm-";

std::string journal_name(const JournalEntry& entry) {
    return std::string{journal_prefix} + std::to_string(entry.vmm_pid) + "-" + std::to_string(entry.vm_fd) +
           ".json";
}

template <class Number>
void take_number(const json::object& object, std::string_view name, Number& to) {
    const auto* value = object.if_contains(name);
    boost::system::error_code error;
    if (value == nullptr) return;
    const auto number = value->to_number<std::int64_t>(error);
    if (!error)
        to = static_cast<Number>(number);
    else if (value->is_uint64())
        to = static_cast<Number>(value->get_uint64());
}

template <class Visit>
void for_each_object(const json::object& object, std::string_view name, Visit visit) {
    const auto* rows = object.if_contains(name);
    if (rows == nullptr || !rows->is_array()) return;
    for (const auto& row : rows->get_array())
        if (row.is_object()) visit(row.get_object());
}

}  // namespace

bool JournalEntry::owner_alive() const { return same_process(owner_pid, owner_start); }
bool JournalEntry::vmm_alive() const { return same_process(vmm_pid, vmm_start); }

std::string to_text(const JournalEntry& entry) {
    json::array runs, patches;
    for (const auto& run : entry.runs)
        runs.push_back(json::object{{"fd", run.fd}, {"address", run.address}, {"valid", run.valid}});
    for (const auto& patch : entry.patches)
        patches.push_back(json::object{{"host", patch.host}, {"original", patch.original}});
    return json::serialize(json::object{{"target", entry.target},
                                        {"vmm_pid", entry.vmm_pid},
                                        {"vmm_start", entry.vmm_start},
                                        {"vm_fd", entry.vm_fd},
                                        {"owner_pid", entry.owner_pid},
                                        {"owner_start", entry.owner_start},
                                        {"board_code", entry.board.code},
                                        {"board_data", entry.board.data},
                                        {"board_records", entry.board.records},
                                        {"runs", std::move(runs)},
                                        {"patches", std::move(patches)}});
}

Result<JournalEntry> parse_journal(const std::string& text) {
    boost::system::error_code error;
    const auto parsed = json::parse(text, error);
    if (error || !parsed.is_object()) return fail(Errc::bad_data, "a journal that is not a JSON object");
    const auto& object = parsed.get_object();
    JournalEntry entry;
    if (const auto* target = object.if_contains("target"); target != nullptr && target->is_string())
        entry.target = std::string{target->get_string()};
    take_number(object, "vmm_pid", entry.vmm_pid);
    take_number(object, "vmm_start", entry.vmm_start);
    take_number(object, "vm_fd", entry.vm_fd);
    take_number(object, "owner_pid", entry.owner_pid);
    take_number(object, "owner_start", entry.owner_start);
    take_number(object, "board_code", entry.board.code);
    take_number(object, "board_data", entry.board.data);
    take_number(object, "board_records", entry.board.records);
    for_each_object(object, "runs", [&](const json::object& row) {
        auto& run = entry.runs.emplace_back();
        take_number(row, "fd", run.fd);
        take_number(row, "address", run.address);
        take_number(row, "valid", run.valid);
    });
    for_each_object(object, "patches", [&](const json::object& row) {
        auto& patch = entry.patches.emplace_back();
        take_number(row, "host", patch.host);
        take_number(row, "original", patch.original);
    });
    if (entry.target.empty() || entry.vmm_pid <= 0)
        return fail(Errc::bad_data, "a journal without target or pid");
    return entry;
}

Result<void> write_journal(const JournalEntry& entry) {
    return write_runtime_file(journal_name(entry), to_text(entry));
}

std::vector<JournalEntry> read_journals() {
    std::vector<JournalEntry> entries;
    for (const auto& file : read_runtime_files(journal_prefix))
        if (auto entry = parse_journal(file.text)) entries.push_back(std::move(*entry));
    return entries;
}

void remove_journal(const JournalEntry& entry) { remove_runtime_file(journal_name(entry)); }

Result<FileDescriptor> lock_journal(const JournalEntry& entry, std::chrono::milliseconds limit) {
    const auto is_meant = [&](const std::string& text) -> Result<bool> {
        const auto now = TRY(parse_journal(text));
        return now.owner_pid == entry.owner_pid && now.owner_start == entry.owner_start;
    };
    return lock_runtime_file(journal_name(entry), is_meant, limit);
}

}  // namespace exo::kvm
