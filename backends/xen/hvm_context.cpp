#include "backends/xen/hvm_context.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "backends/xen/headers.h"

namespace exo::xen {
namespace {

struct Record {
    hvm_save_descriptor head{};
    ConstBytes content;
};

// Takes the first record off `context`; nothing at the end, or where it does not fit.
std::optional<Record> take_record(ConstBytes& context) {
    Record record;
    if (context.size() < sizeof record.head) return std::nullopt;
    std::memcpy(&record.head, context.data(), sizeof record.head);
    context = context.subspan(sizeof record.head);
    if (record.head.length > context.size() || record.head.typecode == HVM_SAVE_CODE(END))
        return std::nullopt;
    record.content = context.first(record.head.length);
    context = context.subspan(record.head.length);
    return record;
}

void append(HvmContext& context, const Record& record) {
    std::ranges::copy(std::as_bytes(std::span{&record.head, 1}), std::back_inserter(context));
    std::ranges::copy(record.content, std::back_inserter(context));
}

}  // namespace

std::optional<ConstBytes> find_record(ConstBytes context, std::uint16_t type, std::uint16_t instance) {
    while (const auto record = take_record(context))
        if (record->head.typecode == type && record->head.instance == instance) return record->content;
    return std::nullopt;
}

std::optional<HvmContext> for_loading(ConstBytes from, std::span<const std::uint16_t> types,
                                      const ChangeRecord& change) {
    HvmContext context;
    while (const auto record = take_record(from)) {
        const bool header = record->head.typecode == HVM_SAVE_CODE(HEADER);
        if (header != context.empty()) continue;  // it comes first, and once
        if (!header && std::ranges::find(types, record->head.typecode) == types.end()) continue;
        append(context, *record);
        if (!header)
            change(record->head.typecode, record->head.instance,
                   MutableBytes{context}.last(record->head.length));
    }
    if (context.empty()) return std::nullopt;
    append(context, {{HVM_SAVE_CODE(END), 0, 0}, {}});
    return context;
}

}  // namespace exo::xen
