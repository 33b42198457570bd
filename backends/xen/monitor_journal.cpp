#include "backends/xen/monitor_journal.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value_from.hpp>
#include <limits>
#include <optional>
#include <string_view>

namespace exo::xen {
namespace json = boost::json;
namespace {

template <class Number>
std::optional<Number> number(const json::value& value) {
    boost::system::error_code error;
    const auto wide = value.is_uint64() ? value.get_uint64() : value.to_number<std::uint64_t>(error);
    if (error || wide > std::numeric_limits<Number>::max()) return std::nullopt;
    return static_cast<Number>(wide);
}

template <class Number>
void take_number(const json::object& object, std::string_view name, Number& to) {
    if (const auto* value = object.if_contains(name))
        if (const auto found = number<Number>(*value)) to = *found;
}

bool flag(const json::object& object, std::string_view name) {
    const auto* value = object.if_contains(name);
    return value != nullptr && value->is_bool() && value->get_bool();
}

template <class Number>
std::vector<Number> numbers(const json::object& object, std::string_view name) {
    std::vector<Number> found;
    const auto* rows = object.if_contains(name);
    if (rows == nullptr || !rows->is_array()) return found;
    for (const auto& row : rows->get_array())
        if (const auto value = number<Number>(row)) found.push_back(*value);
    return found;
}

template <class Visit>
void for_each_object(const json::object& object, std::string_view name, Visit visit) {
    const auto* rows = object.if_contains(name);
    if (rows == nullptr || !rows->is_array()) return;
    for (const auto& row : rows->get_array())
        if (row.is_object()) visit(row.get_object());
}

}  // namespace

std::string to_text(const MonitorJournal& journal) {
    json::array patches, debug_registers;
    for (const auto& patch : journal.patches)
        patches.push_back(json::object{{"place", raw(patch.place)}, {"original", patch.original}});
    for (const auto& row : journal.debug_registers)
        debug_registers.push_back(json::object{{"vcpu", row.vcpu},
                                               {"address", json::value_from(row.values.address)},
                                               {"control", row.values.control}});
    return json::serialize(json::object{{"events", journal.events},
                                        {"altp2m", journal.altp2m},
                                        {"views", json::value_from(journal.views)},
                                        {"maximum", journal.maximum},
                                        {"pages", json::value_from(journal.pages)},
                                        {"watched", json::value_from(journal.watched)},
                                        {"patches", std::move(patches)},
                                        {"debug_registers", std::move(debug_registers)},
                                        {"trap_flags", json::value_from(journal.trap_flags)}});
}

Result<MonitorJournal> parse_monitor_journal(const std::string& text) {
    boost::system::error_code error;
    const auto parsed = json::parse(text, error);
    if (error || !parsed.is_object()) return fail(Errc::bad_data, "a journal that is not a JSON object");
    const auto& object = parsed.get_object();
    MonitorJournal journal;
    journal.events = flag(object, "events");
    journal.altp2m = flag(object, "altp2m");
    take_number(object, "maximum", journal.maximum);
    journal.views = numbers<std::uint16_t>(object, "views");
    journal.pages = numbers<std::uint64_t>(object, "pages");
    journal.watched = numbers<std::uint64_t>(object, "watched");
    journal.trap_flags = numbers<std::uint32_t>(object, "trap_flags");
    for_each_object(object, "patches", [&](const json::object& row) {
        std::uint64_t place = 0;
        take_number(row, "place", place);
        auto& patch = journal.patches.emplace_back();
        patch.place = PhysicalAddress{place};
        take_number(row, "original", patch.original);
    });
    for_each_object(object, "debug_registers", [&](const json::object& row) {
        auto& registers = journal.debug_registers.emplace_back();
        take_number(row, "vcpu", registers.vcpu);
        take_number(row, "control", registers.values.control);
        const auto address = numbers<std::uint64_t>(row, "address");
        for (std::size_t i = 0; i < registers.values.address.size() && i < address.size(); ++i)
            registers.values.address.at(i) = address[i];
    });
    return journal;
}

}  // namespace exo::xen
