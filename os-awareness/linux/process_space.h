// The memory of a process, with what its page tables do not map yet.
#pragma once

#include <memory>
#include <vector>

#include "backends/arch/page_tables.h"
#include "os-awareness/linux/file_pages.h"
#include "os-awareness/linux/mappings.h"

namespace exo::os {

// As Processes::readable_space() has it. User addresses only.
class ProcessSpace final : public AddressSpace {
public:
    // `zero_page` is the kernel's page of zeros, which it maps for reads of what was never written; 0 if not
    // known. What is referred to must outlive this.
    ProcessSpace(std::unique_ptr<x86::PageTables> tables, const Mappings& mappings, const FilePages& files,
                 std::uint64_t mm, PhysicalAddress zero_page)
        : tables_(std::move(tables)), mappings_(&mappings), files_(&files), mm_(mm), zero_page_(zero_page) {}

    Result<Translation> translate(VirtualAddress address) override;
    [[nodiscard]] PhysicalMemory& physical() override { return tables_->physical(); }
    std::optional<VirtualAddress> next_mapped(VirtualAddress address) override {
        return tables_->next_mapped(address);
    }
    void forget() override;

private:
    Result<Translation> absent(VirtualAddress address);
    Result<Translation> untouched(VirtualAddress address);
    Result<Translation> of_file(const Vma& vma, VirtualAddress address);
    [[nodiscard]] Result<Translation> zeros(VirtualAddress address) const;
    Result<const Vma*> mapping_at(VirtualAddress address);

    std::unique_ptr<x86::PageTables> tables_;
    const Mappings* mappings_;
    const FilePages* files_;
    std::uint64_t mm_;
    PhysicalAddress zero_page_;
    std::optional<std::vector<Vma>> all_;  // since forget()
};

}  // namespace exo::os
