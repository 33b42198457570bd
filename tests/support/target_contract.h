// What every Target must do, as a list of checks to run against a live guest: no test framework, so that a
// guest in a lab, far from doctest, can be checked too. The guest runs at the start and at the end; nothing
// of it changes.
//
// It should do something at least once a second (a shell loop with `sleep 1` will do), and have no debugger.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "backends/api/target.h"

namespace exo::test {

struct ContractResult {
    std::string check;
    bool ok = false;
    std::string detail;  // what was wrong; or a figure worth telling
};

struct ContractOptions {
    std::chrono::seconds patience{20};  // for one stop
    int steps = 20;
};

// All checks in their order. After a failed attach the rest is left out.
std::vector<ContractResult> check_target_contract(Target& target, const ContractOptions& options = {});

}  // namespace exo::test
