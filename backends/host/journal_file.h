// What the backends' journals have in common: runtime files (runtime_file.h) that hold one JSON object each.
// A member that is missing, of another type or out of its range leaves what was there.
#pragma once

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/host/runtime_file.h"

namespace exo::journal {

namespace json = boost::json;

inline Result<json::object> parse_object(const std::string& text) {
    boost::system::error_code error;
    auto parsed = json::parse(text, error);
    if (error || !parsed.is_object()) return fail(Errc::bad_data, "a journal that is not a JSON object");
    return std::move(parsed.get_object());
}

template <class Number>
void take(const json::object& object, std::string_view name, Number& to) {
    boost::system::error_code error;
    if (const auto* value = object.if_contains(name))
        if (const auto number = value->to_number<Number>(error); !error) to = number;
}

inline void take(const json::object& object, std::string_view name, bool& to) {
    if (const auto* value = object.if_contains(name); value != nullptr && value->is_bool())
        to = value->get_bool();
}

inline void take(const json::object& object, std::string_view name, std::string& to) {
    if (const auto* value = object.if_contains(name); value != nullptr && value->is_string())
        to = std::string{value->get_string()};
}

template <class Number>
void take(const json::object& object, std::string_view name, std::vector<Number>& to) {
    const auto* rows = object.if_contains(name);
    if (rows == nullptr || !rows->is_array()) return;
    for (const auto& row : rows->get_array()) {
        boost::system::error_code error;
        if (const auto number = row.to_number<Number>(error); !error) to.push_back(number);
    }
}

template <class Visit>
void for_each_object(const json::object& object, std::string_view name, Visit visit) {
    const auto* rows = object.if_contains(name);
    if (rows == nullptr || !rows->is_array()) return;
    for (const auto& row : rows->get_array())
        if (row.is_object()) visit(row.get_object());
}

template <class Entry>
using Parser = Result<Entry> (*)(const std::string&);

// Those that make sense; the paths of others are put into `broken`.
template <class Entry>
std::vector<Entry> read_all(std::string_view prefix, Parser<Entry> parse,
                            std::vector<std::string>* broken = nullptr) {
    std::vector<Entry> entries;
    for (const auto& file : read_runtime_files(prefix)) {
        if (auto entry = parse(file.text))
            entries.push_back(std::move(*entry));
        else if (broken != nullptr)
            broken->push_back(file.path);
    }
    return entries;
}

// As lock_runtime_file(), if the file still is the one of the entry's owner.
template <class Entry>
Result<FileDescriptor> lock(const std::string& name, const Entry& entry, Parser<Entry> parse,
                            std::chrono::milliseconds limit) {
    const auto is_meant = [&](const std::string& text) -> Result<bool> {
        const auto now = TRY(parse(text));
        return now.owner_pid == entry.owner_pid && now.owner_start == entry.owner_start;
    };
    return lock_runtime_file(name, is_meant, limit);
}

}  // namespace exo::journal
