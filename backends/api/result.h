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

[[nodiscard]] inline tl::unexpected<Error> fail(Error error) { return tl::make_unexpected(std::move(error)); }

}  // namespace exo

// TRY(expr): the value of a Result, or return its error from the enclosing function. May be nested.
// A statement expression (GNU C, also in Clang). Not usable around co_await: GCC 12.2 then dies with an
// internal compiler error.
#define EXO_TRY_NAMED(name, ...)                                   \
    __extension__({                                                \
        auto name = (__VA_ARGS__);                                 \
        if (!name) [[unlikely]]                                    \
            return ::tl::make_unexpected(std::move(name).error()); \
        std::move(name).value();                                   \
    })
#define EXO_CHECK_NAMED(name, ...)                                 \
    do {                                                           \
        auto name = (__VA_ARGS__);                                 \
        if (!name) [[unlikely]]                                    \
            return ::tl::make_unexpected(std::move(name).error()); \
    } while (false)
#define EXO_TRY_EXPAND(counter, macro, ...) macro(try_result_##counter, __VA_ARGS__)
#define EXO_TRY_COUNTED(counter, macro, ...) EXO_TRY_EXPAND(counter, macro, __VA_ARGS__)
#define TRY(...) EXO_TRY_COUNTED(__COUNTER__, EXO_TRY_NAMED, __VA_ARGS__)
// CHECK_OK(expr): the same for Result<void>, or for a value that is not wanted.
#define CHECK_OK(...) EXO_TRY_COUNTED(__COUNTER__, EXO_CHECK_NAMED, __VA_ARGS__)
