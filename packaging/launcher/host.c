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

#define SAYS "release version 2." /* "GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36." */

/* The <n> of glibc 2.<n>; 0 if it can not be told. */
static unsigned version_of(const char *library) {
    unsigned minor = 0;
    struct stat about;
    int file = open(library, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &about) < 0) return 0;
    const char *bytes = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (bytes == MAP_FAILED) return 0;
    const char *end = bytes + about.st_size, *at = memmem(bytes, (size_t)about.st_size, SAYS, strlen(SAYS));
    for (at = at ? at + strlen(SAYS) : end; at < end && *at >= '0' && *at <= '9' && minor < 1000; at++) minor = minor * 10 + (unsigned)(*at - '0');
    munmap((void *)bytes, (size_t)about.st_size);
    return minor;
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
    unsigned found = version_of(library);
    if (found == 0 || found >= footer->glibc_minor) return true;
    snprintf(reason, REASON, "this machine's C library is glibc 2.%u, but 2.%u or newer is needed: Debian 12, Ubuntu 22.04, Raspberry Pi OS 12 or newer",
             found, footer->glibc_minor);
    return false;
}
