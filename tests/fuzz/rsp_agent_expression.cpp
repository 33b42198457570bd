// Agent expressions as bytes: what parses ends, and prints and collects no more than it may.
#include <span>

#include "fuzz.h"
#include "rsp/agent_expression.h"

namespace {

using namespace exo::rsp;

class Context final : public AgentContext {
public:
    std::optional<std::uint64_t> register_value(std::uint64_t number) override {
        if (number > 80) return std::nullopt;
        return number * 0x0101010101010101;
    }
    std::size_t read_memory(std::uint64_t address, std::span<std::byte> out) override {
        exo::fuzz::require(out.size() <= 64);
        for (std::size_t i = 0; i < out.size(); ++i) {
            if ((address + i) >> 20U != 0) return i;
            out[i] = static_cast<std::byte>((address + i) * 7);
        }
        return out.size();
    }
    std::optional<std::uint64_t> variable(std::uint64_t number) override {
        if (number > 4) return std::nullopt;
        return value_;
    }
    bool set_variable(std::uint64_t number, std::uint64_t value) override {
        value_ = value;
        return number <= 4;
    }
    void print(std::string_view text) override {
        printed_ += text.size();
        exo::fuzz::require(printed_ <= 1U << 16U);
    }
    Refusal collect_memory(std::uint64_t /*address*/, std::uint64_t length) override {
        exo::fuzz::require(length > 0);
        return std::nullopt;
    }

private:
    std::uint64_t value_ = 0;
    std::size_t printed_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    AgentError error;
    const auto bytes = std::as_bytes(std::span{data, size});
    const auto expression = AgentExpression::parse(bytes, error);
    if (!expression) {
        exo::fuzz::require(error.offset <= size && !to_string(error).empty());
        return 0;
    }
    exo::fuzz::require(!expression->instructions().empty() && expression->instructions().size() <= size);
    Context context;
    const auto result = evaluate(*expression, context);
    if (result.error) exo::fuzz::require(result.error->offset < size);
    return 0;
}
