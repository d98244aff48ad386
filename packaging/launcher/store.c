/* A folder that holds one sub-folder for each unpacked version, named by the hash of its payload, and the links `current` and `previous`.
 *
 * A version is complete or not there: it is unpacked beside, brought to disk, and renamed. A start compares names, kinds, modes and sizes
 * with the list inside, whose own hash is in the launcher: what was cut short or tampered with is unpacked again. Who makes or removes
 * something holds the lock of the folder. Who runs a version holds a shared lock on it: what runs is not pruned. */
#define _GNU_SOURCE
#include "launcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define BESIDE ".unpacking"
#define AWAY ".removed"
#define LOCK ".lock"
#define MARGIN (4u << 20) /* bytes of the file system's own */
#define FIRST_FREE 100    /* descriptors below are left to the program: systemd passes sockets from 3 on */

static bool make_folders(const char *path) {
    char part[PATH_MAX];
    for (const char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", slash ? (int)(slash - path) : (int)strlen(path), path);
        if (mkdir(part, 0700) < 0 && errno != EEXIST && access(part, F_OK) < 0) return false;
        if (slash == NULL) return true;
    }
}

/* Only what nobody else can have put there is executed. */
static bool is_ours(int folder) {
    struct stat about;
    return fstat(folder, &about) == 0 && (about.st_uid == 0 || about.st_uid == geteuid()) && (about.st_mode & 022) == 0;
}

static bool entry_fits(int folder, char *line) {
    unsigned mode;
    unsigned long long size;
    int path = 0;
    struct stat about;
    if (sscanf(line, "%*64s %o %llu %n", &mode, &size, &path) != 2 || path == 0) return false;
    if (fstatat(folder, line + path, &about, AT_SYMLINK_NOFOLLOW) < 0 || about.st_mode != mode) return false;
    return S_ISDIR(mode) || (unsigned long long)about.st_size == size;
}

/* Is the folder all that the list inside it says? And is that our list? */
static bool complete(int folder, const struct footer *footer) {
    uint8_t digest[32];
    struct sha256 sum;
    struct stat about;
    int file = openat(folder, MANIFEST, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0) return false;
    char *text = fstat(file, &about) == 0 && about.st_size < 1 << 20 ? malloc((size_t)about.st_size + 1) : NULL;
    bool fine = text != NULL && read(file, text, (size_t)about.st_size) == about.st_size;
    close(file);
    if (fine) {
        sha256_start(&sum);
        sha256_add(&sum, text, (size_t)about.st_size);
        sha256_end(&sum, digest);
        fine = memcmp(digest, footer->manifest, sizeof digest) == 0;
        text[about.st_size] = 0;
    }
    for (char *line = fine ? strtok(text, "\n") : NULL; fine && line != NULL; line = strtok(NULL, "\n")) fine = entry_fits(folder, line);
    free(text);
    return fine;
}

/* A descriptor of the version's folder with a shared lock, kept by the program we become; -1 if it is not there or not complete. */
static int held(int store, const char *name, const struct footer *footer) {
    struct stat opened, named;
    int low = openat(store, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (low < 0) return -1;
    int folder = fcntl(low, F_DUPFD, FIRST_FREE);
    close(low);
    if (folder < 0) return -1;
    if (is_ours(folder) && flock(folder, LOCK_SH) == 0 && fstat(folder, &opened) == 0 &&
        fstatat(store, name, &named, AT_SYMLINK_NOFOLLOW) == 0 && opened.st_ino == named.st_ino && complete(folder, footer))
        return folder;
    close(folder);
    return -1;
}

static void point(int store, const char *link, const char *target) {
    unlinkat(store, ".link", 0);
    if (symlinkat(target, store, ".link") == 0) renameat(store, ".link", store, link);
}

static void target_of(int store, const char *link, char out[HEX + 1]) {
    ssize_t length = readlinkat(store, link, out, HEX);
    out[length < 0 ? 0 : length] = 0;
}

/* With the lock held. The version that was current until now is the one to go back to. */
static void make_current(int store, const char *name) {
    char current[HEX + 1];
    target_of(store, "current", current);
    if (!strcmp(current, name)) return;
    if (*current) point(store, "previous", current);
    point(store, "current", name);
}

/* With the lock held: versions that are neither linked nor running go. */
static void prune(int store) {
    char current[HEX + 1], previous[HEX + 1];
    target_of(store, "current", current);
    target_of(store, "previous", previous);
    DIR *listing = fdopendir(openat(store, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (listing == NULL) return;
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        const char *name = entry->d_name;
        if (strlen(name) != HEX || strspn(name, "0123456789abcdef") != HEX || !strcmp(name, current) || !strcmp(name, previous)) continue;
        int folder = openat(store, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (folder < 0) continue;
        if (flock(folder, LOCK_EX | LOCK_NB) == 0 && renameat(store, name, store, AWAY) == 0) remove_tree(store, AWAY);
        close(folder);
    }
    closedir(listing);
}

static bool has_room(int store, const struct footer *footer, char *reason) {
    struct statvfs about;
    if (fstatvfs(store, &about) < 0) return true;
    unsigned long long unit = about.f_frsize, room = unit * (geteuid() == 0 ? about.f_bfree : about.f_bavail);
    if (room >= footer->unpacked + MARGIN) return true;
    snprintf(reason, REASON, "%llu MB are free, %llu are needed", room >> 20, (unsigned long long)(footer->unpacked + MARGIN) >> 20);
    return false;
}

/* With the lock held: unpacked beside, then renamed to its name. */
static bool install(int store, const char *name, const struct footer *footer, int file, char *reason, bool *full) {
    remove_tree(store, BESIDE); /* of one that was killed */
    remove_tree(store, AWAY);
    renameat(store, name, store, AWAY); /* is there, but not complete */
    remove_tree(store, AWAY);
    if (!has_room(store, footer, reason)) return !(*full = true);
    int into = mkdirat(store, BESIDE, 0700) < 0 ? -1 : openat(store, BESIDE, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool fine = into >= 0 && unpack(file, footer, into, reason) && fchmod(into, 0755) == 0;
    fine = fine && renameat(store, BESIDE, store, name) == 0 && fsync(store) == 0;
    if (!fine && errno) snprintf(reason, REASON, "%s", strerror(errno));
    *full = !fine && (errno == ENOSPC || errno == EDQUOT);
    if (into >= 0) close(into);
    if (!fine) remove_tree(store, BESIDE);
    return fine;
}

/* The lock of the folder, or -1: others may wait for us, or we for them. */
static int locked(int store) {
    int lock = openat(store, LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (lock >= 0 && flock(lock, LOCK_EX) == 0) return lock;
    if (lock >= 0) close(lock);
    return -1;
}

static int made(int store, const char *name, const struct footer *footer, int file, char *reason, bool *full) {
    int lock = locked(store);
    if (lock < 0) {
        snprintf(reason, REASON, "%s", strerror(errno));
        return -1;
    }
    int folder = held(store, name, footer); /* somebody else made it while we waited */
    if (folder < 0 && install(store, name, footer, file, reason, full)) {
        folder = held(store, name, footer);
        if (folder < 0) snprintf(reason, REASON, "what was unpacked is not what was written: is the disk failing?");
    }
    if (folder >= 0) {
        make_current(store, name);
        prune(store);
    }
    close(lock);
    return folder;
}

int prepare(const char *place, const struct footer *footer, int file, char *reason, bool *full) {
    char name[HEX + 1], current[HEX + 1];
    struct statvfs about;
    to_hex(footer->payload, name);
    *full = false;
    int store = make_folders(place) ? open(place, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (store < 0) {
        snprintf(reason, REASON, "%s", strerror(errno));
        *full = errno == ENOSPC || errno == EDQUOT;
        return -1;
    }
    int folder = -1;
    if (!is_ours(store))
        snprintf(reason, REASON, "it belongs to another user, or others may write there");
    else if (fstatvfs(store, &about) == 0 && about.f_flag & ST_NOEXEC)
        snprintf(reason, REASON, "programs may not be run there (noexec)");
    else if ((folder = held(store, name, footer)) < 0)
        folder = made(store, name, footer, file, reason, full);
    else {
        target_of(store, "current", current);
        int lock = strcmp(current, name) ? locked(store) : -1;
        if (lock >= 0) {
            make_current(store, name);
            close(lock);
        }
    }
    close(store);
    return folder;
}
