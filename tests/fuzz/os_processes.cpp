// A guest with a process in which some bytes were changed: mappings, folders, mounts, page cache, page
// tables. However they are torn up, each question about it ends, with an answer or an error.
#include <vector>

#include "fuzz.h"
#include "tear_up.h"
#include "tests/support/process_builder.h"

namespace {

using namespace exo;
using namespace exo::test;

struct Processes : ProcessGuest {
    std::vector<std::uint64_t> places;  // what is changed, and what pointers are changed to

    Processes() {
        page(program, 0);
        page(data, 1);
        present(0x600000);
        const auto cache = [&](std::uint64_t of) {
            return get(get(of, "inode", "i_mapping"), "address_space", "i_pages.xa_head") & ~std::uint64_t{3};
        };
        const auto inner = field(0, "mount", "mnt");
        places = {raw(task.address),
                  mm,
                  fs,
                  cred,
                  signal,
                  leaf,
                  text_vma,
                  data_vma,
                  root.dentry,
                  bin,
                  mounted.dentry,
                  root.mount - inner,
                  program,
                  data,
                  in_memory,
                  cache(program),
                  cache(data),
                  mounted.mount - inner,
                  cache_entry(data, 1)};
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static Processes guest;
    fuzz::Input input{data, size};
    const fuzz::TearUp torn{guest.guest, guest.places, input};
    for (const auto* name :
         {"smaps", "status", "stat", "comm", "auxv", "cmdline", "environ", "coredump_filter"}) {
        (void)guest.proc(name);
    }
    const auto maps = guest.proc("maps");
    for (const auto* name : {"exe", "cwd", "root"}) (void)guest.processes->proc_link(guest.task, name);
    for (const auto address : {0x400000, 0x501000, 0x600000, 0x602000}) (void)guest.memory(address, 0x1800);
    for (const auto* path : {"/bin/program", "/link/../mnt/data", "/mnt/../bin/nothing"}) {
        (void)guest.content(path, 0x800, 0x2000);
    }
    fuzz::require(torn.changed() || maps.starts_with("00400000-00403000 r-xp "));
    return 0;
}
