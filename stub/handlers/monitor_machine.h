// The commands of `monitor` that are about the machine, whatever runs in it. Arguments are what follows the
// command's name.
#pragma once

#include <string>
#include <string_view>

#include "stub/session.h"

namespace exo::stub::handlers {

Result<std::string> show_vcpus(Session& session, std::string_view arguments);
Result<std::string> show_physical(Session& session, std::string_view arguments);
Result<std::string> show_msr(Session& session, std::string_view arguments);
Result<std::string> send_nmi(Session& session, std::string_view arguments);
Result<std::string> reset_machine(Session& session, std::string_view arguments);

}  // namespace exo::stub::handlers
