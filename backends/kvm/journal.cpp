#include "backends/kvm/journal.h"

#include <string_view>

#include "backends/host/journal_file.h"

namespace exo::kvm {
namespace json = boost::json;
using journal::take;
namespace {

constexpr std::string_view journal_prefix = "kvm-";

std::string journal_name(const JournalEntry& entry) {
    return std::string{journal_prefix} + std::to_string(entry.vmm_pid) + "-" + std::to_string(entry.vm_fd) +
           ".json";
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
    const auto object = TRY(journal::parse_object(text));
    JournalEntry entry;
    take(object, "target", entry.target);
    take(object, "vmm_pid", entry.vmm_pid);
    take(object, "vmm_start", entry.vmm_start);
    take(object, "vm_fd", entry.vm_fd);
    take(object, "owner_pid", entry.owner_pid);
    take(object, "owner_start", entry.owner_start);
    take(object, "board_code", entry.board.code);
    take(object, "board_data", entry.board.data);
    take(object, "board_records", entry.board.records);
    journal::for_each_object(object, "runs", [&](const json::object& row) {
        auto& run = entry.runs.emplace_back();
        take(row, "fd", run.fd);
        take(row, "address", run.address);
        take(row, "valid", run.valid);
    });
    journal::for_each_object(object, "patches", [&](const json::object& row) {
        auto& patch = entry.patches.emplace_back();
        take(row, "host", patch.host);
        take(row, "original", patch.original);
    });
    if (entry.target.empty() || entry.vmm_pid <= 0)
        return fail(Errc::bad_data, "a journal without target or pid");
    return entry;
}

Result<void> write_journal(const JournalEntry& entry) {
    return write_runtime_file(journal_name(entry), to_text(entry));
}

std::vector<JournalEntry> read_journals() { return journal::read_all(journal_prefix, &parse_journal); }

void remove_journal(const JournalEntry& entry) { remove_runtime_file(journal_name(entry)); }

Result<FileDescriptor> lock_journal(const JournalEntry& entry, std::chrono::milliseconds limit) {
    return journal::lock(journal_name(entry), entry, &parse_journal, limit);
}

}  // namespace exo::kvm
