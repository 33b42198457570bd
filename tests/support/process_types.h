// The types of ProcessGuest's kernel.
#pragma once

#include <cstddef>
#include <vector>

namespace exo::test {

// BTF of the structures that describe a process. Of a size and order that no real kernel has.
std::vector<std::byte> process_types();

}  // namespace exo::test
