/* A disk that fails on demand, for LD_PRELOAD: calls on data.mdb fail while $FAILING_DIR holds a file of this name, with
 * the errno that is written in it.
 *
 *     sync    fdatasync, fsync
 *     pages   writes behind the first two pages, which are not made
 *     part    the same, but half of the first buffer is written, as a disk does that becomes full; needs no errno
 *     meta    writes of the first two pages, which are made nevertheless: nobody can know, that is the point
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define META_BYTES 8192

static int is_data(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    return size > 9 && !memcmp(path + size - 9, "/data.mdb", 9);
}

static int failing(int fd, const char *what) {
    const char *directory = getenv("FAILING_DIR");
    char path[4096];
    if (!directory || !is_data(fd)) return 0;
    snprintf(path, sizeof path, "%s/%s", directory, what);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    int found = 0;
    if (fscanf(file, "%d", &found) != 1) found = EIO;
    fclose(file);
    return found;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define SYNC(name)                                   \
    int name(int fd) {                               \
        REAL(name);                    \
        int code = failing(fd, "sync");              \
        if (code) { errno = code; return -1; }       \
        return real(fd);                             \
    }
SYNC(fdatasync)
SYNC(fsync)

#define PWRITE(name)                                                              \
    ssize_t name(int fd, const void *buffer, size_t size, off_t at) {             \
        REAL(name);                \
        int code = failing(fd, at < META_BYTES ? "meta" : "pages");               \
        if (code && at < META_BYTES) real(fd, buffer, size, at);                  \
        if (code) { errno = code; return -1; }                                    \
        if (at >= META_BYTES && failing(fd, "part")) return real(fd, buffer, size / 2, at); \
        return real(fd, buffer, size, at);                                        \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t writev(int fd, const struct iovec *buffers, int count) {
    REAL(writev);
    int code = failing(fd, "pages");
    if (code) { errno = code; return -1; }
    if (failing(fd, "part")) return write(fd, buffers[0].iov_base, buffers[0].iov_len / 2);
    return real(fd, buffers, count);
}

#define PWRITEV(name)                                                             \
    ssize_t name(int fd, const struct iovec *buffers, int count, off_t at) {      \
        REAL(name);           \
        int code = failing(fd, "pages");                                          \
        if (code) { errno = code; return -1; }                                    \
        if (failing(fd, "part")) return pwrite(fd, buffers[0].iov_base, buffers[0].iov_len / 2, at); \
        return real(fd, buffers, count, at);                                      \
    }
PWRITEV(pwritev)
PWRITEV(pwritev64)
