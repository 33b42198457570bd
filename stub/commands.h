// The commands, one function each; they return an ExitStatus.
#pragma once

#include "stub/options.h"

namespace exo::stub {

int run_list(const Options& options);
int run_serve(const Options& options);
int run_info(const Options& options);
int run_ps(const Options& options);
int run_dmesg(const Options& options);
int run_doctor(const Options& options);
int run_recover(const Options& options);
int run_symbols(const Options& options);

}  // namespace exo::stub
