#include "backends/xen/hvm_context.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "backends/xen/headers.h"

namespace exo::xen {
namespace {

void append(HvmContext& context, std::uint16_t type, std::uint16_t instance, ConstBytes content) {
    const hvm_save_descriptor head{type, instance, static_cast<std::uint32_t>(content.size())};
    std::ranges::copy(std::as_bytes(std::span{&head, 1}), std::back_inserter(context));
    std::ranges::copy(content, std::back_inserter(context));
}

}  // namespace

std::optional<ConstBytes> find_record(ConstBytes context, std::uint16_t type, std::uint16_t instance) {
    hvm_save_descriptor head{};
    while (context.size() >= sizeof head) {
        std::memcpy(&head, context.data(), sizeof head);
        context = context.subspan(sizeof head);
        if (head.length > context.size() || head.typecode == HVM_SAVE_CODE(END)) return std::nullopt;
        if (head.typecode == type && head.instance == instance) return context.first(head.length);
        context = context.subspan(head.length);
    }
    return std::nullopt;
}

std::optional<HvmContext> with_one_record(ConstBytes from, std::uint16_t type, std::uint16_t instance,
                                          ConstBytes content) {
    const auto header = find_record(from, HVM_SAVE_CODE(HEADER), 0);
    if (!header) return std::nullopt;
    HvmContext context;
    append(context, HVM_SAVE_CODE(HEADER), 0, *header);
    append(context, type, instance, content);
    append(context, HVM_SAVE_CODE(END), 0, {});
    return context;
}

}  // namespace exo::xen
