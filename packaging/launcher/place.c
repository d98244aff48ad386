/* Where the program is unpacked: `data` in the data directory, which is found as edgekube itself finds it (flag, environment,
 * configuration file, default), as far as this user may write there; else a folder of this user's own: the cache, then temporary
 * folders, at last memory. root takes no folder from the environment: $HOME may be somebody else's. */
#define _GNU_SOURCE
#include "launcher.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATA_DIR "/var/lib/edgekube"
#define CONFIG "/etc/edgekube/config.yaml"

/* The value of `--name V` or `--name=V`; the last one counts. */
static const char *flag(int argc, char **argv, const char *name) {
    const char *found = NULL;
    size_t length = strlen(name);
    if (argc > 1 && !strcmp(argv[1], "kubectl")) return NULL; /* its arguments are not ours */
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
        if (strncmp(argv[i], name, length)) continue;
        if (argv[i][length] == '=') found = argv[i] + length + 1;
        if (!argv[i][length] && i + 1 < argc) found = argv[++i];
    }
    return found;
}

/* `data-dir: V` of the configuration file, a plain or quoted word on a line of its own. */
static bool from_file(const char *path, char out[PATH_MAX]) {
    char line[PATH_MAX];
    bool found = false;
    FILE *file = fopen(path, "re");
    if (file == NULL) return false;
    while (!found && fgets(line, sizeof line, file)) {
        if (strncmp(line, "data-dir:", 9)) continue;
        char *value = line + 9 + strspn(line + 9, " \t\"'");
        value[strcspn(value, " \t\"'#\r\n")] = 0;
        snprintf(out, PATH_MAX, "%s", value);
        found = *value != 0;
    }
    fclose(file);
    return found;
}

static void data_dir(int argc, char **argv, char out[PATH_MAX]) {
    const char *named = flag(argc, argv, "--data-dir"), *config = flag(argc, argv, "--config");
    if (named == NULL) named = getenv("EDGEKUBE_DATA_DIR");
    if (config == NULL) config = getenv("EDGEKUBE_CONFIG");
    if (named != NULL && *named)
        snprintf(out, PATH_MAX, "%s", named);
    else if (!from_file(config != NULL && *config ? config : CONFIG, out))
        snprintf(out, PATH_MAX, "%s", DATA_DIR);
    if (*out != '/') {
        char here[PATH_MAX / 2], relative[PATH_MAX / 2];
        snprintf(relative, sizeof relative, "%s", out);
        if (getcwd(here, sizeof here) != NULL) snprintf(out, PATH_MAX, "%s/%s", here, relative);
    }
}

static int add(struct place *out, int count, int room, bool last, const char *front, const char *back) {
    if (count == room || snprintf(out[count].path, sizeof out[count].path, "%s%s", front, back) >= (int)sizeof out[count].path) return count;
    out[count].last = last;
    return count + 1;
}

int find_places(int argc, char **argv, struct place *out, int room) {
    char data[PATH_MAX], mine[32];
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    bool runs = argc > 1 && (!strcmp(argv[1], "server") || !strcmp(argv[1], "agent"));
    int count = 0;
    data_dir(argc, argv, data);
    count = add(out, count, room, runs, data, "/data");
    if (geteuid() != 0) {
        if (cache != NULL && *cache == '/')
            count = add(out, count, room, false, cache, "/edgekube");
        else if (home != NULL && *home == '/')
            count = add(out, count, room, false, home, "/.cache/edgekube");
    }
    snprintf(mine, sizeof mine, "/edgekube-%u", (unsigned)geteuid());
    static const char *const shared[] = {"/var/tmp", "/tmp", "/dev/shm"};
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++) {
        struct stat about; /* where others could rename our folder away, it is not safe */
        if (lstat(shared[i], &about) == 0 && S_ISDIR(about.st_mode) && about.st_uid == 0 && (!(about.st_mode & 022) || about.st_mode & S_ISVTX))
            count = add(out, count, room, false, shared[i], mine);
    }
    return count;
}
