#include "backends/xen/monitor_journal.h"

#include <boost/json/value_from.hpp>

#include "backends/host/journal_file.h"

namespace exo::xen {
namespace json = boost::json;
using journal::take;

json::object to_json(const MonitorJournal& journal) {
    json::array patches, debug_registers;
    for (const auto& patch : journal.patches)
        patches.push_back(json::object{{"place", raw(patch.place)}, {"original", patch.original}});
    for (const auto& row : journal.debug_registers)
        debug_registers.push_back(json::object{{"vcpu", row.vcpu},
                                               {"address", json::value_from(row.values.address)},
                                               {"control", row.values.control}});
    return json::object{{"events", journal.events},
                        {"altp2m", journal.altp2m},
                        {"views", json::value_from(journal.views)},
                        {"maximum", journal.maximum},
                        {"pages", json::value_from(journal.pages)},
                        {"watched", json::value_from(journal.watched)},
                        {"patches", std::move(patches)},
                        {"debug_registers", std::move(debug_registers)},
                        {"trap_flags", json::value_from(journal.trap_flags)}};
}

Result<MonitorJournal> parse_monitor_journal(const json::value& value) {
    if (!value.is_object()) return fail(Errc::bad_data, "a monitor's journal that is not a JSON object");
    const auto& object = value.get_object();
    MonitorJournal read;
    take(object, "events", read.events);
    take(object, "altp2m", read.altp2m);
    take(object, "maximum", read.maximum);
    take(object, "views", read.views);
    take(object, "pages", read.pages);
    take(object, "watched", read.watched);
    take(object, "trap_flags", read.trap_flags);
    journal::for_each_object(object, "patches", [&](const json::object& row) {
        std::uint64_t place = 0;
        take(row, "place", place);
        auto& patch = read.patches.emplace_back();
        patch.place = PhysicalAddress{place};
        take(row, "original", patch.original);
    });
    journal::for_each_object(object, "debug_registers", [&](const json::object& row) {
        auto& registers = read.debug_registers.emplace_back();
        take(row, "vcpu", registers.vcpu);
        take(row, "control", registers.values.control);
        std::vector<std::uint64_t> address;
        take(row, "address", address);
        for (std::size_t i = 0; i < registers.values.address.size() && i < address.size(); ++i)
            registers.values.address.at(i) = address[i];
    });
    return read;
}

}  // namespace exo::xen
