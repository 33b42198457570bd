// Memory that page tables do not map yet, and files of the page cache.
#include <doctest/doctest.h>

#include <cstring>

#include "tests/support/process_builder.h"

namespace {

using namespace exo;
using namespace exo::test;

constexpr std::uint64_t page = ProcessGuest::page_bytes;

bool contains_text(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

void write_text(MutableBytes to, std::string_view text) { std::memcpy(to.data(), text.data(), text.size()); }

}  // namespace

TEST_CASE_FIXTURE(ProcessGuest, "memory: what the process would find") {
    write_text(present(0x600000), "mapped");
    CHECK(memory(0x600000, 6) == "mapped");
    CHECK(memory(0x601000, 4) == std::string(4, '\0'));  // never touched
    CHECK(memory(0x600ffe, 8) == std::string(8, '\0'));
    CHECK(contains_text(memory(0x605000, 4), "error: 0x605000 is not mapped"));
    CHECK(contains_text(memory(0xffff'ffff'8100'0000, 4), "is the kernel's"));
    SUBCASE("a page without access: its number is inverted") {
        auto& value = entry(0x600000);
        value = (~value & 0x000f'ffff'ffff'f000) | 0x100;
        CHECK(memory(0x600002, 4) == "pped");
    }
    SUBCASE("a page that is swapped out") {
        entry(0x600000) = 0x0800'0000'1234'5e00;
        CHECK(contains_text(memory(0x600000, 6), "error: not in memory: 0x600000 is swapped out"));
        CHECK(memory(0x601000, 2) == std::string(2, '\0'));
    }
    SUBCASE("stray bits of an entry that is none") {
        entry(0x600000) = 0x60;
        CHECK(memory(0x600000, 2) == std::string(2, '\0'));
    }
    SUBCASE("what the process fills itself, and what is a device's") {
        set(anonymous_vma, "vm_area_struct", "vm_flags", 0x203);
        CHECK(contains_text(memory(0x601000, 4), "userfaultfd"));
        set(anonymous_vma, "vm_area_struct", "vm_flags", 0x403);
        CHECK(contains_text(memory(0x601000, 4), "is a device's"));
    }
    SUBCASE("a mapping of the kernel's own making") {
        set(anonymous_vma, "vm_area_struct", "vm_ops", make("vm_operations_struct"));
        CHECK(contains_text(memory(0x601000, 4), "not in memory: 0x601000 is filled when"));
        // The vDSO is in the kernel's own data.
        const auto bytes = text("of the kernel");
        const auto image_of_vdso = make("vdso_image");
        set(mm, "mm_struct", "context.vdso", 0x601000);
        set(mm, "mm_struct", "context.vdso_image", image_of_vdso);
        set(image_of_vdso, "vdso_image", "data", bytes & ~(page_bytes - 1));
        set(image_of_vdso, "vdso_image", "size", page_bytes);
        CHECK(memory(0x601000 + bytes % page_bytes, 13) == "of the kernel");
        set(image_of_vdso, "vdso_image", "size", 0);
        CHECK(contains_text(memory(0x601000, 4), "is filled when"));
        set(image_of_vdso, "vdso_image", "size", page_bytes);
        set(image_of_vdso, "vdso_image", "data", bytes | 1);
        CHECK(contains_text(memory(0x601000, 4), "no vDSO can be at"));
    }
}

TEST_CASE_FIXTURE(ProcessGuest, "memory: writes are denied, whatever is there") {
    present(0x600000);
    const auto space = processes->readable_space(task);
    REQUIRE(space);
    const std::string_view text = "x";
    for (const std::uint64_t address : {0x600000, 0x601000}) {
        const auto written = (*space)->write_some(VirtualAddress{address}, std::as_bytes(std::span{text}));
        REQUIRE_FALSE(written);
        CHECK(written.error().code == Errc::denied);
    }
    CHECK(memory(0x600000, 1) == std::string(1, '\0'));
    CHECK(memory(0x601000, 1) == std::string(1, '\0'));
}

TEST_CASE_FIXTURE(ProcessGuest, "memory: pages of files") {
    write_text(this->page(data, 1), "second page");
    CHECK(memory(0x501000, 6) == "second");
    CHECK(contains_text(memory(0x500000, 6), "not in memory: page 0 of the file is not in the page cache"));
    // All that a file system in memory has is there: the rest are holes, to the file's end.
    write_text(this->page(program, 0), "ELF");
    CHECK(memory(0x400000, 3) == "ELF");
    CHECK(memory(0x401000, 3) == std::string(3, '\0'));
    set(program, "inode", "i_size", 2 * ::page);
    CHECK(contains_text(memory(0x402000, 3), "past the end of the mapped file"));
    set(data, "inode", "i_mode", 0020600);
    CHECK(contains_text(memory(0x501000, 6), "is a device's"));
}

TEST_CASE_FIXTURE(ProcessGuest, "smaps: what is there, and what is the process' own") {
    write_text(this->page(program, 0), "ELF");
    present(0x400000);  // a copy
    present(0x600000);
    present(0x601000);
    auto& hidden = entry(0x601000);
    hidden = (~hidden & 0x000f'ffff'ffff'f000) | 0x100;
    const auto text = proc("smaps");
    CHECK(contains_text(text,
                        "/bin/program\nSize:                 12 kB\nRss:                   4 kB\n"
                        "Anonymous:             4 kB\nVmFlags: rd ex \n"));
    CHECK(contains_text(
        text,
        "Size:                 16 kB\nRss:                   8 kB\nAnonymous:             8 kB\n"
        "VmFlags: rd wr \n"));
    CHECK(contains_text(text, "Rss:                   0 kB\nAnonymous:             0 kB\nVmFlags: rd ms \n"));
    // The page of the file itself.
    const auto bytes = this->page(program, 0);
    const auto& memory_of_guest = guest.memory().bytes(PhysicalAddress{0}, 1);
    const auto physical = static_cast<std::uint64_t>(bytes.data() - memory_of_guest.data());
    entry(0x400000) = physical | 5;
    CHECK(contains_text(proc("smaps"),
                        "/bin/program\nSize:                 12 kB\nRss:                   4 kB\n"
                        "Anonymous:             0 kB\n"));
}

TEST_CASE_FIXTURE(ProcessGuest, "files: out of the page cache, exact or not at all") {
    write_text(this->page(data, 0), "first page");
    write_text(this->page(data, 1).last(3), "end");
    CHECK(content("/mnt/data", 0, 5) == "first");
    CHECK(content("/mnt/data", 2 * ::page - 3, 100) == "end");  // the next is not there
    CHECK(contains_text(content("/mnt/data", 2 * ::page, 100), "not in memory: page 2"));
    CHECK(content("/mnt/data", 4 * ::page, 100).empty());
    SUBCASE("a shadow of what was dropped") {
        cache_entry(data, 0) = 0x1235;
        CHECK(contains_text(content("/mnt/data", 0, 5), "not in the page cache any more"));
    }
    SUBCASE("a page that is being read from the disk") {
        set(cache_entry(data, 0), "folio", "flags", 1);
        CHECK(contains_text(content("/mnt/data", 0, 5), "was not read from the disk yet"));
    }
    SUBCASE("a large folio: one entry, and siblings of it") {
        const auto folio = cache_entry(data, 0);
        cache_entry(data, 3) = 0U << 2U | 2;  // of slot 0
        set(folio, "folio", "index", 0);
        const auto fourth = content("/mnt/data", 3 * ::page, 4);
        CHECK(fourth == std::string(4, '\0'));  // three pages behind the first, in the guest's heap
        CHECK(contains_text(content("/mnt/data", 2 * ::page, 4), "not in memory"));
    }
    SUBCASE("no page") {
        cache_entry(data, 0) = mm;
        CHECK(contains_text(content("/mnt/data", 0, 5), "error: "));
        cache_entry(data, 0) = 0x402;  // XA_RETRY_ENTRY
        CHECK(contains_text(content("/mnt/data", 0, 5), "being changed"));
    }
    SUBCASE("a tree that leads back to itself") {
        const auto mapping = get(data, "inode", "i_mapping");
        cache_entry(data, 0) = get(mapping, "address_space", "i_pages.xa_head");
        CHECK(contains_text(content("/mnt/data", 0, 5), "tree of a file's pages is broken"));
    }
    SUBCASE("of tmpfs, in swap") {
        cache_entry(program, 0) = 0x1235;
        CHECK(contains_text(content("/bin/program", 0, 5), "is swapped out"));
        CHECK(content("/bin/program", 2 * ::page, 100) == std::string(10, '\0'));
    }
    SUBCASE("it is another file by now") {
        const auto found = processes->find_file(task, "/mnt/data");
        REQUIRE(found);
        CHECK(*processes->file_size(*found) == 4 * ::page);
        set(data, "inode", "i_ino", 13);
        CHECK_FALSE(processes->file_size(*found));
        CHECK(processes->file_size(*found).error().code == Errc::not_found);
    }
    SUBCASE("what is made when it is read") {
        set(get(get(data, "inode", "i_sb"), "super_block", "s_type"), "file_system_type", "fs_flags", 0);
        set(data, "inode", "i_size", 0);
        CHECK(contains_text(content("/mnt/data", 0, 5), "error: not in memory"));
    }
}

TEST_CASE_FIXTURE(ProcessGuest, "names: folders, mounts, links, and their ends") {
    write_text(this->page(data, 0), "data");
    write_text(this->page(program, 0), "ELF");
    // Not mapped, so that they are looked up.
    set(text_vma, "vm_area_struct", "vm_file", 0);
    set(data_vma, "vm_area_struct", "vm_file", 0);
    CHECK(content("/mnt/data", 0, 4) == "data");
    CHECK(content("//mnt/./../mnt/../link/program", 0, 3) == "ELF");
    CHECK(content("/../bin/program", 0, 3) == "ELF");
    CHECK(contains_text(content("/bin/other", 0, 3), "error: the kernel does not remember a other"));
    CHECK(contains_text(content("/bin", 0, 3), "error: it is no regular file"));
    CHECK(contains_text(content("bin/program", 0, 3), "error: not an absolute path"));
    SUBCASE("a link in a file") {
        const auto long_link = inode(in_memory, 9, link, 12);
        write_text(this->page(long_link, 0), "../mnt/data\0");
        set(long_link, "inode", "i_size", 11);
        dentry(bin, "long", long_link);
        CHECK(content("/bin/long", 0, 4) == "data");
    }
    SUBCASE("links without end") {
        const auto around = inode(in_memory, 9, link, 7);
        set(around, "inode", "i_link", text("/around"));
        dentry(root.dentry, "around", around);
        CHECK(contains_text(content("/around", 0, 4), "too many symbolic links"));
    }
    SUBCASE("a name that is known not to be") {
        dentry(bin, "gone", 0);
        CHECK(contains_text(content("/bin/gone", 0, 3), "there is no gone"));
    }
    SUBCASE("a name that was deleted") {
        const auto entry = get(bin, "dentry", "d_children") - field(0, "dentry", "d_sib");
        set(entry, "dentry", "d_hash.pprev", 0);
        CHECK(contains_text(content("/bin/program", 0, 3), "does not remember"));
    }
    SUBCASE("mounts on each other without end") {
        const auto inner = field(0, "mount", "mnt");
        set(mounted.mount - inner, "mount", "mnt_child", field(mounted.mount - inner, "mount", "mnt_child"));
        CHECK(contains_text(content("/bin/program", 0, 3), "the mounts have no end"));
    }
    SUBCASE("children without end") {
        const auto entry = get(bin, "dentry", "d_children");
        guest.put(VirtualAddress{entry}, entry);
        CHECK(contains_text(content("/bin/other", 0, 3), "have no end"));
    }
    SUBCASE("the root of another") {
        set(field(fs, "fs_struct", "root"), "path", "dentry", bin);
        CHECK(content("/program", 0, 3) == "ELF");
        CHECK(content("/../program", 0, 3) == "ELF");
        CHECK(contains_text(content("/mnt/data", 0, 4), "error: "));
    }
}
