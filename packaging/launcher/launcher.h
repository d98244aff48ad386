/* The launcher: the front part of the one file that users install. It unpacks the program that is appended to it, once, and becomes it.
 *
 *   main.c     reads what is appended, tries one place after the other, executes
 *   place.c    where the program may be unpacked: the data directory, else a folder of this user
 *   store.c    a folder with one sub-folder per version: found, checked, locked, pruned
 *   unpack.c   the payload: read, checked, written
 *   host.c     can this machine run the program at all
 *   sha256.c   hashes
 *
 * Statically linked: it can say on any Linux of its architecture why the program does not run there. */
#ifndef LAUNCHER_H
#define LAUNCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAGIC "EDGEKUBE-PAYLOAD"
#define MANIFEST "MANIFEST"
#define PROGRAM "edgekube"
#define HEX 64
#define REASON 512

/* The last bytes of the file, little-endian; pack.py writes them. */
struct footer {
    uint64_t offset, length, unpacked; /* of the payload in the file; bytes of all files in it */
    uint8_t payload[32], manifest[32]; /* SHA-256 of the payload and of the list of what it unpacks to */
    char interpreter[64];              /* the dynamic loader that the program needs */
    uint32_t glibc_minor, reserved;    /* it needs glibc 2.<minor> */
    char version[32];
    char magic[16];
};

struct place {
    char path[4096];
    bool last; /* the data directory of a server or agent: when it is full, say so instead of going elsewhere */
};

/* place.c: fills `out`, at most `room` of them, best first; returns how many. */
int find_places(int argc, char **argv, struct place *out, int room);

/* store.c: makes sure that this version is unpacked at `place`. Returns a descriptor of its folder, which holds a shared lock as long as
 * the program runs, or -1 with the reason. `*full`: there was no room. */
int prepare(const char *place, const struct footer *footer, int file, char *reason, bool *full);

/* unpack.c: writes the payload of `file` below the folder `into`, everything on disk when it returns. False with errno, or errno 0 and
 * a reason if the payload is damaged. */
bool unpack(int file, const struct footer *footer, int into, char *reason);
bool remove_tree(int at, const char *name);

/* host.c: false with the reason if this machine can not run the program. */
bool host_fits(const struct footer *footer, char *reason);

/* sha256.c */
struct sha256 {
    uint32_t state[8];
    uint64_t length;
    uint8_t block[64];
};
void sha256_start(struct sha256 *sum);
void sha256_add(struct sha256 *sum, const void *data, size_t size);
void sha256_end(struct sha256 *sum, uint8_t digest[32]);
void to_hex(const uint8_t digest[32], char out[HEX + 1]);

#endif
