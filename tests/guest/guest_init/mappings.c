// Scenario mappings: a process that has mappings of each kind that /proc/PID/maps names differently.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif
#ifndef PR_SET_VMA_ANON_NAME
#define PR_SET_VMA_ANON_NAME 0
#endif

enum { PAGE = 4096 };

// `pages` pages of which each begins with its number in text.
static int make_file(const char* path, int pages) {
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    char page[PAGE];
    for (int number = 0; number < pages; ++number) {
        memset(page, 'a' + number % 26, PAGE);
        snprintf(page, PAGE, "page %d of %s\n", number, path);
        if (write(fd, page, PAGE) != PAGE) return -1;
    }
    return fd;
}

static char* map(int fd, size_t size, int protection, int flags, off_t offset) {
    char* at = mmap(NULL, size, protection, flags, fd, offset);
    return at == MAP_FAILED ? NULL : at;
}

// Each after a page that is none, so that no two become one.
static char* anonymous(int protection, int flags) {
    char* at = map(-1, 6 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, 0);
    mmap(at + PAGE, 4 * PAGE, protection, flags | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    munmap(at, PAGE);
    munmap(at + 5 * PAGE, PAGE);
    return at + PAGE;
}

static void map_files(void) {
    int fd = make_file("/files/mapped", 8);
    char* own = map(fd, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, PAGE);
    own[2 * PAGE] = '!';  // a copy; the others are not mapped yet
    map(fd, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
    map(make_file("/files/line\nfeed and \\", 1), PAGE, PROT_READ, MAP_SHARED, 0);
    map(make_file("/files/deleted", 1), PAGE, PROT_READ, MAP_PRIVATE, 0);
    unlink("/files/deleted");
    mkdir("/files/mount", 0755);
    mount("other", "/files/mount", "tmpfs", 0, "size=1m");
    mkdir("/files/mount/folder", 0755);
    fd = make_file("/files/mount/folder/file", 3);
    int too_long = ftruncate(fd, 5 * PAGE + 100);  // a hole at the end
    map(fd, 6 * PAGE, PROT_READ, MAP_SHARED, 0);
    symlink("mount/folder", "/files/link");
    int memory = memfd_create("in memory", MFD_CLOEXEC);
    if (too_long || ftruncate(memory, 2 * PAGE)) _exit(1);
    char* shared = map(memory, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
    strcpy(shared, "memfd");
}

static void map_anonymous(void) {
    strcpy(anonymous(PROT_READ | PROT_WRITE, MAP_PRIVATE), "touched once");
    char* hidden = anonymous(PROT_READ | PROT_WRITE, MAP_PRIVATE);
    strcpy(hidden, "without access");
    mprotect(hidden, 4 * PAGE, PROT_NONE);
    strcpy(anonymous(PROT_READ | PROT_WRITE, MAP_SHARED), "shared");
    char* named = anonymous(PROT_READ | PROT_WRITE, MAP_PRIVATE);
    prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, named, 4 * PAGE, "a given name");
    char* private = anonymous(PROT_READ | PROT_EXEC, MAP_PRIVATE);
    madvise(private, 4 * PAGE, MADV_DONTFORK);
}

static void* sleeping(void* unused) {
    (void)unused;
    prctl(PR_SET_NAME, "second");
    for (;;) pause();
    return NULL;
}

// Run by exec, so that it has arguments and an environment.
int be_mapper(void) {
    pthread_t thread;
    prctl(PR_SET_NAME, "exo-mapper");
    umask(027);
    if (!malloc(100) || mkdir("/files", 0755) || chdir("/files")) return 1;
    map_files();
    map_anonymous();
    pthread_create(&thread, NULL, sleeping, NULL);
    mkdir("/files/ready", 0755);
    for (;;) pause();
}

void scenario_mappings(void) {
    char* const arguments[] = {"mapper", "with an argument", "", NULL};
    char* const environment[] = {"EXO=guest", "EMPTY=", NULL};
    struct stat status;
    if (fork() == 0) {
        setsid();
        execve("/init", arguments, environment);
        _exit(1);
    }
    while (stat("/files/ready", &status)) usleep(10000);
}
