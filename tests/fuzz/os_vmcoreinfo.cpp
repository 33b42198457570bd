// VMCOREINFO: what is taken has a release, and each value is one that can be looked up.
#include "os-awareness/linux/vmcoreinfo.h"

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto text = exo::fuzz::as_text(data, size);
    const auto info = exo::os::VmCoreInfo::parse(text);
    if (!info) return 0;
    exo::fuzz::require(info->find("OSRELEASE") == info->release());
    exo::fuzz::require(info->release().find('\n') == std::string_view::npos);
    for (const auto name : {"_stext", "phys_base", "page", "list_head.next"}) {
        (void)info->symbol(name);
        (void)info->number(name);
        (void)info->size(name);
        (void)info->offset(name);
    }
    (void)info->kernel_offset();
    return 0;
}
