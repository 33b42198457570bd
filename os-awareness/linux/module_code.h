// The code of loaded modules, by address: what functions it has and how they are unwound. Read when it is
// asked for.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "os-awareness/linux/kernel_image.h"
#include "os-awareness/linux/modules.h"
#include "os-awareness/linux/orc.h"

namespace exo::os {

class ModuleCode {
public:
    struct Code {
        Module module;
        SymbolTable symbols;
        std::optional<OrcTable> orc;
    };

    // Both must outlive this.
    ModuleCode(KernelImage& image, ModuleList& list) : image_(&image), list_(&list) {}

    // The guest has run: others may be loaded now. What is known of those that still are is kept.
    void guest_ran() { current_ = false; }

    // Whose memory has `address`, null if no module's. Good until the guest has run.
    const Code* at(VirtualAddress address);
    // The lowest address of that name in the module that was loaded last.
    std::optional<VirtualAddress> find(std::string_view name);
    // Rules for code of modules, null where none is known.
    const OrcRule* rule_at(VirtualAddress address);

    // How the kernel's own ORC table is laid out, which a module's is as well; nothing if it has none.
    std::optional<OrcLayout> orc_layout();

private:
    struct Entry {
        Module module;
        std::optional<Code> code;  // once it was asked for
        bool gone = false;         // it was when its code was to be read
    };
    void look();
    const Code* code_of(Entry& entry);

    KernelImage* image_;
    ModuleList* list_;
    bool current_ = false;
    std::vector<Entry> entries_;  // in the guest's order
    std::optional<OrcLayout> orc_layout_;
    bool orc_layout_known_ = false;
};

}  // namespace exo::os
