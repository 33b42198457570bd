// Commands of `monitor` that have files of their own; stub/handlers/monitor.cpp has the table.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "stub/session.h"

namespace exo::stub::handlers {

// Of what `what` says, in decimal; an error that names it.
Result<std::uint64_t> decimal(std::string_view text, std::string_view what);

// monitor_machine.cpp: about the machine, whatever runs in it.
Result<std::string> show_vcpus(Session& session, std::string_view arguments);
Result<std::string> show_physical(Session& session, std::string_view arguments);
Result<std::string> show_msr(Session& session, std::string_view arguments);
Result<std::string> send_nmi(Session& session, std::string_view arguments);
Result<std::string> reset_machine(Session& session, std::string_view arguments);

// filters.cpp
Result<std::string> set_filter(Session& session, std::string_view arguments);
// Behind a breakpoint's line in `monitor breakpoints`.
std::string conditions_text(const Conditions& conditions, const BreakpointKey& key);
// Of filters where the client has no breakpoint just now (gdb has none while the guest stands), and how often
// the guest went on at a breakpoint.
std::string conditions_text(const Session& session);

}  // namespace exo::stub::handlers
