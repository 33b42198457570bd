// The kernel's text as the guest sees it, compared byte for byte with a copy that the guest keeps.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "guest.h"

// "text save" keeps a copy of the kernel's text, _stext to _etext as /proc/kcore shows it; "text diff" lists
// each range of bytes that differs from the copy: "ADDRESS was HEX is HEX".
static unsigned char* saved_text;
static uint64_t text_start, text_end;

static int find_text(void) {
    FILE* file = fopen("/proc/kallsyms", "r");
    char line[1024], name[512];
    unsigned long long address;
    while (file && fgets(line, sizeof line, file) && !(text_start && text_end)) {
        if (sscanf(line, "%llx %*c %511s", &address, name) != 2) continue;
        if (!strcmp(name, "_stext")) text_start = address;
        if (!strcmp(name, "_etext")) text_end = address;
    }
    if (file) fclose(file);
    return text_start && text_end > text_start;
}

struct elf_header {
    unsigned char ident[16];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, phoff, shoff;
    uint32_t flags;
    uint16_t ehsize, phentsize, phnum;
};
struct elf_segment {
    uint32_t type, flags;
    uint64_t offset, vaddr, paddr, filesz, memsz, align;
};

static int read_text(unsigned char* into) {
    int fd = open("/proc/kcore", O_RDONLY | O_CLOEXEC);
    struct elf_header header;
    struct elf_segment segment;
    int found = 0;
    if (fd < 0 || pread(fd, &header, sizeof header, 0) != (ssize_t)sizeof header) return 0;
    for (int index = 0; index < header.phnum && !found; ++index) {
        off_t where = (off_t)(header.phoff + (uint64_t)index * sizeof segment);
        if (pread(fd, &segment, sizeof segment, where) != (ssize_t)sizeof segment) break;
        if (segment.vaddr > text_start || text_end > segment.vaddr + segment.filesz) continue;
        size_t done = 0, size = text_end - text_start;
        while (done < size) {
            ssize_t got = pread(fd, into + done, size - done,
                                (off_t)(segment.offset + (text_start - segment.vaddr) + done));
            if (got <= 0) break;
            done += (size_t)got;
        }
        found = done == size;
    }
    close(fd);
    return found;
}

static void say_difference(const unsigned char* now, size_t from, size_t to) {
    say("%llx was ", (unsigned long long)(text_start + from));
    for (size_t byte = from; byte < to; ++byte) say("%02x", saved_text[byte]);
    say(" is ");
    for (size_t byte = from; byte < to; ++byte) say("%02x", now[byte]);
    say("\n");
}

// Where the processor has no RDRAND the random number generator is seeded minutes after boot, unless somebody
// waits for it, and a worker then flips a static key in its text (crng_set_ready(), drivers/char/random.c).
static void wait_for_random_numbers(void) {
    char byte;
    if (getrandom(&byte, 1, 0) == 1) usleep(500000);
}

const char* answer_text(char* rest) {
    if (!text_start && !find_text()) return "no _stext and _etext in kallsyms";
    if (!strcmp(rest, "save")) wait_for_random_numbers();
    size_t size = text_end - text_start;
    void* copy = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (copy == MAP_FAILED) return "no memory for a copy of the text";
    if (!read_text(copy)) {
        munmap(copy, size);
        return "cannot read the text in /proc/kcore";
    }
    if (!strcmp(rest, "save")) {
        if (saved_text) munmap(saved_text, size);
        saved_text = copy;
        say("%llx %llx\n", (unsigned long long)text_start, (unsigned long long)text_end);
        return NULL;
    }
    if (strcmp(rest, "diff") || !saved_text) {
        munmap(copy, size);
        return "text save first, then text diff";
    }
    unsigned char* now = copy;
    int reported = 0;
    for (size_t at = 0; at < size && reported < 100; ++at) {
        if (now[at] == saved_text[at]) continue;
        size_t end = at + 1;
        while (end < size && end < at + 64 && now[end] != saved_text[end]) ++end;
        say_difference(now, at, end);
        at = end;
        ++reported;
    }
    munmap(copy, size);
    return NULL;
}
