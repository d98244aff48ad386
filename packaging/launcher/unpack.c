/* The payload: one zstd frame of records {mode, length of path, size, path, content}; a record with mode 0 ends it. A link's content is
 * its target. Paths are relative and never lead upwards. Its hash is checked before anything is written. */
#define _GNU_SOURCE
#include "launcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#define LONGEST 1024

struct source {
    ZSTD_DStream *stream;
    ZSTD_inBuffer in;
    bool bad;
};

/* Exactly `size` bytes, or false. */
static bool take(struct source *from, void *out, size_t size) {
    ZSTD_outBuffer into = {out, size, 0};
    while (into.pos < size) {
        size_t before = into.pos, left = from->in.size - from->in.pos;
        size_t code = ZSTD_decompressStream(from->stream, &into, &from->in);
        if (ZSTD_isError(code) || (left == 0 && into.pos == before)) return !(from->bad = true);
    }
    return true;
}

static bool write_all(int file, const char *bytes, size_t size) {
    while (size) {
        ssize_t done = write(file, bytes, size);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return false;
        bytes += done, size -= (size_t)done;
    }
    return true;
}

static bool write_file(struct source *from, int into, const char *path, mode_t mode, uint64_t size) {
    static char buffer[1 << 18];
    int file = openat(into, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (file < 0) return false;
    bool fine = true;
    while (fine && size) {
        size_t part = size < sizeof buffer ? (size_t)size : sizeof buffer;
        fine = take(from, buffer, part) && write_all(file, buffer, part);
        size -= part;
    }
    fine = fine && fchmod(file, mode) == 0; /* whatever the umask is */
    if (fine) sync_file_range(file, 0, 0, SYNC_FILE_RANGE_WRITE); /* let the disk begin; sync_tree waits for it */
    int kept = errno;
    close(file);
    errno = kept;
    return fine;
}

static bool write_record(struct source *from, int into, const char *path, mode_t mode, uint64_t size) {
    if (S_ISDIR(mode)) return mkdirat(into, path, 0700) == 0 && fchmodat(into, path, mode & 0777, 0) == 0;
    if (S_ISREG(mode)) return write_file(from, into, path, mode & 0777, size);
    char target[LONGEST + 1] = "";
    if (size > LONGEST || !take(from, target, size)) return !(from->bad = true);
    return symlinkat(target, into, path) == 0;
}

static bool write_records(struct source *from, int into) {
    for (;;) {
        char path[LONGEST + 1] = "";
        uint8_t head[16];
        uint32_t mode, length;
        uint64_t size;
        if (!take(from, head, sizeof head)) return false;
        memcpy(&mode, head, 4), memcpy(&length, head + 4, 4), memcpy(&size, head + 8, 8);
        if (mode == 0) return true;
        if (length > LONGEST || !take(from, path, length)) return !(from->bad = true);
        if (*path == '/' || strstr(path, "..")) return !(from->bad = true);
        if (!write_record(from, into, path, mode, size)) return false;
    }
}

/* Every file and folder below `at`/`name` is on disk when it returns. */
static bool sync_tree(int at, const char *name) {
    int folder = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *listing = folder < 0 ? NULL : fdopendir(folder);
    if (listing == NULL) return false;
    bool fine = true;
    for (struct dirent *entry; fine && (entry = readdir(listing)) != NULL;) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        struct stat about;
        fine = fstatat(folder, entry->d_name, &about, AT_SYMLINK_NOFOLLOW) == 0;
        if (fine && S_ISDIR(about.st_mode)) fine = sync_tree(folder, entry->d_name);
        if (fine && S_ISREG(about.st_mode)) {
            int file = openat(folder, entry->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
            fine = file >= 0 && fsync(file) == 0;
            if (file >= 0) close(file);
        }
    }
    fine = fine && fsync(folder) == 0;
    int kept = errno;
    closedir(listing);
    errno = kept;
    return fine;
}

bool unpack(int file, const struct footer *footer, int into, char *reason) {
    uint8_t digest[32];
    struct sha256 sum;
    long page = sysconf(_SC_PAGESIZE);
    size_t skip = footer->offset % (uint64_t)page, length = footer->length + skip;
    uint8_t *mapped = mmap(NULL, length, PROT_READ, MAP_PRIVATE, file, (off_t)(footer->offset - skip));
    if (mapped == MAP_FAILED) return false;
    sha256_start(&sum);
    sha256_add(&sum, mapped + skip, footer->length);
    sha256_end(&sum, digest);
    struct source from = {ZSTD_createDStream(), {mapped + skip, footer->length, 0}, false};
    bool fine = false;
    if (memcmp(digest, footer->payload, sizeof digest) != 0)
        from.bad = true;
    else
        fine = from.stream != NULL && write_records(&from, into) && sync_tree(into, ".");
    int kept = errno;
    if (from.bad) {
        kept = 0;
        snprintf(reason, REASON, "this file is damaged: its content is not what was built. Copy it again and compare with SHA256SUMS");
    }
    ZSTD_freeDStream(from.stream);
    munmap(mapped, length);
    errno = kept;
    return fine;
}

bool remove_tree(int at, const char *name) {
    if (unlinkat(at, name, 0) == 0 || errno == ENOENT) return true;
    int folder = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *listing = folder < 0 ? NULL : fdopendir(folder);
    if (listing == NULL) return false;
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) remove_tree(folder, entry->d_name);
    closedir(listing);
    return unlinkat(at, name, AT_REMOVEDIR) == 0;
}
