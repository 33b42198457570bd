// Commands of `monitor` that have files of their own; stub/handlers/monitor.cpp has the table.
#pragma once

#include <string>
#include <string_view>

#include "stub/session.h"

namespace exo::stub::handlers {

// filters.cpp
Result<std::string> set_filter(Session& session, std::string_view arguments);
// Behind a breakpoint's line in `monitor breakpoints`.
std::string conditions_text(const Conditions& conditions, const BreakpointKey& key);
// Of filters where the client has no breakpoint just now (gdb has none while the guest stands), and how often
// the guest went on at a breakpoint.
std::string conditions_text(const Session& session);

}  // namespace exo::stub::handlers
