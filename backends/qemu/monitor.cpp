#include "backends/qemu/monitor.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <utility>

namespace exo::qemu {
namespace json = boost::json;
namespace {

Result<json::value> unpack(std::string_view command, std::string_view answer) {
    boost::system::error_code error;
    json::value parsed = json::parse(answer, error);
    const auto* object = error ? nullptr : parsed.if_object();
    if (object == nullptr)
        return fail(Errc::backend, "QEMU's answer to " + std::string{command} + " is not a JSON object");
    if (const auto* value = object->if_contains("return")) return *value;
    std::string reason = "no reason given";
    if (const auto* failure = object->if_contains("error"); failure != nullptr && failure->is_object())
        if (const auto* text = failure->get_object().if_contains("desc"); text && text->is_string())
            reason = std::string{text->get_string()};
    return fail(Errc::backend, "QEMU refuses " + std::string{command} + ": " + reason);
}

}  // namespace

Result<json::value> Monitor::execute(std::string_view command, json::object arguments) {
    const Error gone{Errc::target_gone, "the guest is gone: QEMU has ended"};
    if (process_ != nullptr && !process_->alive()) return fail(gone);
    json::object request{{"execute", command}};
    if (!arguments.empty()) request["arguments"] = std::move(arguments);
    auto answer = exchange(json::serialize(request));
    if (!answer) {
        if (process_ != nullptr && !process_->alive()) return fail(gone);
        return fail(std::move(answer).error());
    }
    return unpack(command, *answer);
}

namespace {

Result<std::string> text_of(Result<json::value> answer) {
    const auto value = TRY(std::move(answer));
    if (!value.is_string()) return fail(Errc::backend, "QEMU's answer to an HMP command is not text");
    std::string text{value.get_string()};
    std::erase(text, '\r');
    return text;
}

}  // namespace

Result<std::string> Monitor::hmp(std::string_view line) {
    return text_of(execute("human-monitor-command", {{"command-line", line}}));
}

Result<std::string> Monitor::hmp(std::string_view line, std::uint32_t cpu_index) {
    return text_of(execute("human-monitor-command", {{"command-line", line}, {"cpu-index", cpu_index}}));
}

}  // namespace exo::qemu
