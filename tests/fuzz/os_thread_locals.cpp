// A process with a C library in which some words were changed: however they are torn up, where a variable is
// ends in an address or an error.
#include "fuzz.h"
#include "os-awareness/thread_locals.h"
#include "tests/support/glibc_builder.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace exo;
    using Process = test::GlibcProcess;
    fuzz::Input input{data, size};
    Process process;
    while (input.rest().size() > 64) {
        const VirtualAddress where{Process::start + input.number(2) % (Process::bytes - 8)};
        const std::uint64_t what = input.number(2);
        if ((what & 1) != 0) process.put(where, Process::start + what % Process::bytes);
        if ((what & 1) == 0) process.space.put(where, static_cast<std::uint32_t>(what >> 1));
    }
    const VirtualAddress link_map = input.byte() % 4 == 0 ? VirtualAddress{0} : Process::library;
    (void)os::thread_local_address(process.space, input.rest(), Process::thread_pointer,
                                   {.link_map = link_map, .offset = 8});
    return 0;
}
