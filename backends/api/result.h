// Result<T>: a value or an Error. Shape of std::expected, which GCC 12 has only under C++23.
#pragma once

#include <utility>

#include <tl/expected.hpp>

#include "backends/api/error.h"

namespace exo {

template <class T>
using Result = tl::expected<T, Error>;

[[nodiscard]] inline tl::unexpected<Error> fail(Errc code, std::string message) {
    return tl::make_unexpected(Error{code, std::move(message)});
}

[[nodiscard]] inline tl::unexpected<Error> fail(Error error) {
    return tl::make_unexpected(std::move(error));
}

}  // namespace exo

// TRY(expr): the value of a Result, or return its error from the enclosing function.
// A statement expression (GNU C, also in Clang). Not usable around co_await: GCC 12.2 then dies with
// an internal compiler error.
#define TRY(...)                                                              \
    __extension__({                                                           \
        auto try_result_ = (__VA_ARGS__);                                     \
        if (!try_result_) [[unlikely]]                                        \
            return ::tl::make_unexpected(std::move(try_result_).error());     \
        std::move(try_result_).value();                                       \
    })

// CHECK_OK(expr): the same for Result<void>.
#define CHECK_OK(...)                                                         \
    do {                                                                      \
        auto try_result_ = (__VA_ARGS__);                                     \
        if (!try_result_) [[unlikely]]                                        \
            return ::tl::make_unexpected(std::move(try_result_).error());     \
    } while (false)
