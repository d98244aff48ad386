/* Whether this machine can run the program: it needs the C library, glibc, of the promised version or newer. */
#define _GNU_SOURCE
#include "launcher.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The newest symbol version GLIBC_2.<n> that the C library has; 0 if it can not be told. */
static unsigned newest(const char *library) {
    unsigned found = 0;
    struct stat about;
    int file = open(library, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &about) < 0) return 0;
    const char *bytes = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (bytes == MAP_FAILED) return 0;
    const char *end = bytes + about.st_size, *at = bytes;
    while ((at = memmem(at, (size_t)(end - at), "GLIBC_2.", 8)) != NULL) {
        unsigned minor = 0;
        for (at += 8; at < end && *at >= '0' && *at <= '9' && minor < 1000; at++) minor = minor * 10 + (unsigned)(*at - '0');
        if (minor > found && minor < 1000) found = minor;
    }
    munmap((void *)bytes, (size_t)about.st_size);
    return found;
}

bool host_fits(const struct footer *footer, char *reason) {
    char loader[PATH_MAX], library[PATH_MAX + 16];
    if (!*footer->interpreter) return true;
    if (realpath(footer->interpreter, loader) == NULL) {
        snprintf(reason, REASON,
                 "this machine has no %s: its C library is not glibc (Alpine), or its programs are of another architecture or 32 bit; "
                 "use Debian 12, Ubuntu 22.04, Raspberry Pi OS 12 (64 bit) or newer",
                 footer->interpreter);
        return false;
    }
    char *slash = strrchr(loader, '/');
    snprintf(library, sizeof library, "%.*s/libc.so.6", (int)(slash - loader), loader);
    unsigned found = newest(library);
    if (found == 0 || found >= footer->glibc_minor) return true;
    snprintf(reason, REASON, "this machine's C library is glibc 2.%u, but 2.%u or newer is needed: Debian 12, Ubuntu 22.04, Raspberry Pi OS 12 or newer",
             found, footer->glibc_minor);
    return false;
}
