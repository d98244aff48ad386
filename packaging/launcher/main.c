/* Unpack once, then become the program: same process, same arguments, its exit code. */
#define _GNU_SOURCE
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PLACES 8

static int failed(const char *reason) {
    fprintf(stderr, "edgekube: %s\n", reason);
    return 1;
}

static bool read_footer(int file, struct footer *footer) {
    struct stat about;
    if (fstat(file, &about) < 0 || about.st_size < (off_t)sizeof *footer) return false;
    off_t end = about.st_size - (off_t)sizeof *footer;
    if (pread(file, footer, sizeof *footer, end) != (ssize_t)sizeof *footer || memcmp(footer->magic, MAGIC, sizeof footer->magic)) return false;
    footer->interpreter[sizeof footer->interpreter - 1] = 0;
    return footer->offset + footer->length == (uint64_t)end;
}

int main(int argc, char **argv) {
    static struct place places[PLACES];
    static char why[PLACES * (PATH_MAX + REASON)];
    struct footer footer;
    char reason[REASON] = "", path[PATH_MAX + HEX + 64], own[PATH_MAX], name[HEX + 1];
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
    if (file < 0 || length < 0) return failed("it can not read itself: is /proc mounted?");
    own[length] = 0;
    if (!read_footer(file, &footer))
        return failed("this file is damaged: its end is missing. Copy it again and compare with SHA256SUMS");
    to_hex(footer.payload, name);
    setenv("_EDGEKUBE_FILE", own, 1);
    int count = find_places(argc, argv, places, PLACES);
    if (!host_fits(&footer, reason)) return failed(reason);
    for (int i = 0; i < count; i++) {
        bool full;
        *reason = 0;
        if (prepare(places[i].path, &footer, file, reason, &full) >= 0) {
            snprintf(path, sizeof path, "%s/%s/" PROGRAM, places[i].path, name);
            execv(path, argv);
            snprintf(reason, sizeof reason, "%s can not be run: %s", PROGRAM, strerror(errno));
        }
        size_t used = strlen(why);
        snprintf(why + used, sizeof why - used, "%s%s: %s", used ? "; " : "", places[i].path, reason);
        if (full && places[i].last) break;
        if (!strncmp(reason, "this file is damaged", 20)) return failed(reason);
    }
    fprintf(stderr, "edgekube: it can not unpack itself: %s\n", why);
    return 1;
}
