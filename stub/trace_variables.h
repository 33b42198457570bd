// Trace state variables (`tvariable`): the client defines them, agent expressions read and write them.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace exo::stub {

struct TraceVariable {
    std::uint64_t initial = 0;  // what it has when a trace starts
    bool builtin = false;
    std::string name;
    std::uint64_t value = 0;
};
using TraceVariables = std::map<std::uint64_t, TraceVariable>;  // by number

}  // namespace exo::stub
