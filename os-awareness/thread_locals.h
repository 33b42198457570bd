// Where a thread of a user program has its own copy of a variable (thread-local storage).
//
// In the program itself: below the thread pointer, by the size of the program's PT_TLS (Drepper, "ELF
// Handling For Thread-Local Storage", 3, variant II; binutils' elf_x86_64_tpoff). In a library of a glibc: by
// what glibc tells its own libthread_db, the _thread_db_* descriptors (nptl_db/structs.def), which are in
// every libc.so or libpthread.so, also a stripped one. Nothing here knows a version.
#pragma once

#include <cstdint>
#include <string_view>

#include "backends/api/memory.h"

namespace exo::os {

struct ThreadLocalVariable {
    VirtualAddress
        link_map{};  // struct link_map of the object that has it; 0: a program that is linked statically
    std::uint64_t offset = 0;  // in the object's block of each thread
};

// `space`: the process' memory; `auxv`: its auxiliary vector; `thread_pointer`: fs_base of the thread, 64
// bits. not_found: the object has none, or this thread has not got its copy yet, since it never looked at
// one. unsupported: a library of a C library other than glibc. bad_address, bad_data: what the program has
// there.
Result<VirtualAddress> thread_local_address(AddressSpace& space, std::string_view auxv,
                                            VirtualAddress thread_pointer,
                                            const ThreadLocalVariable& variable);

}  // namespace exo::os
