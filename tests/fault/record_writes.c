/* Records what a process writes to the files below a directory, and when it synchronises them, in the order in which it
 * happened: what a disk may have of them when the power fails can then be made up (recorded_disk.py).
 *
 *     cc -shared -fPIC -O1 -o record_writes.so record_writes.c -ldl
 *     LD_PRELOAD=record_writes.so RECORD_BELOW=/absolute/directory/ RECORD_TO=file program
 *
 * Each event, little endian:
 *
 *     0   1  kind     N: from here on `file` is the number of a file; its path follows
 *                     W: bytes were written        D: bytes were written through a descriptor with O_SYNC or O_DSYNC
 *                     B: a sync of the file begins S: the sync that began `at` events before this one ended well
 *                     T: the file was cut to, or filled up to, `at` bytes
 *                     R: it was given the name that follows
 *                     M: it was mapped to be written, which nothing here can see
 *     1   3  -
 *     4   4  file
 *     8   8  at       offset in the file
 *     16  8  length   of what follows
 *
 * RECORD_BOOT_ID, if given, is a file that is read instead of the kernel's boot id: who starts here finds later that the
 * system has been started anew.
 *
 * A write is told once it is done. Told late, it counts for less than it may: a sync that began meanwhile does not
 * count for it. LMDB's file of readers is left out: it is made anew after a crash.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FD 1024
#define MAX_FILES 64
#define MAX_PARTS 64

struct event { char kind, unused[3]; uint32_t file; uint64_t at, length; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *below;
static int out = -1;
static uint64_t told;
static char *paths[MAX_FILES];
static int files;
static int file_of[MAX_FD]; /* number of the file, plus one */
static char synced[MAX_FD];

__attribute__((constructor)) static void begin(void) {
    const char *to = getenv("RECORD_TO");
    below = getenv("RECORD_BELOW");
    if (to && below) out = syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
}

static void put(const void *bytes, size_t length) {
    const char *from = bytes;
    while (length) {
        ssize_t done = syscall(SYS_write, out, from, length);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) abort(); /* half a record proves nothing */
        from += done;
        length -= done;
    }
}

static void head(char kind, int file, uint64_t at, uint64_t length) {
    struct event event = {kind, "", file, at, length};
    put(&event, sizeof event);
    told++;
}

static int known(int fd) { return out >= 0 && fd >= 0 && fd < MAX_FD && file_of[fd]; }

static uint64_t tell(char kind, int fd, uint64_t at) {
    pthread_mutex_lock(&lock);
    uint64_t number = told;
    if (kind == 'S') at = number - at;
    head(kind, file_of[fd] - 1, at, 0);
    pthread_mutex_unlock(&lock);
    return number;
}

static void tell_parts(int fd, uint64_t at, const struct iovec *parts, int count, size_t length) {
    pthread_mutex_lock(&lock);
    head(synced[fd] ? 'D' : 'W', file_of[fd] - 1, at, length);
    for (int i = 0; i < count && length; i++) {
        size_t some = parts[i].iov_len < length ? parts[i].iov_len : length;
        put(parts[i].iov_base, some);
        length -= some;
    }
    pthread_mutex_unlock(&lock);
}

static void tell_bytes(int fd, uint64_t at, const void *bytes, size_t length) {
    struct iovec part = {(void *)bytes, length};
    tell_parts(fd, at, &part, 1, length);
}

static const char *instead(const char *path) {
    const char *other = getenv("RECORD_BOOT_ID");
    return other && !strcmp(path, "/proc/sys/kernel/random/boot_id") ? other : path;
}

static int keep(int fd, const char *path, int flags) {
    if (fd < 0 || fd >= MAX_FD || out < 0) return fd;
    size_t length = strlen(path);
    pthread_mutex_lock(&lock);
    file_of[fd] = 0;
    if (!strncmp(path, below, strlen(below)) && !(length > 8 && !strcmp(path + length - 8, "lock.mdb")) &&
        !(flags & O_DIRECTORY)) {
        int file = 0;
        while (file < files && strcmp(paths[file], path)) file++;
        if (file == MAX_FILES) abort();
        if (file == files) {
            paths[files++] = strdup(path);
            head('N', file, 0, length);
            put(path, length);
        }
        if (flags & O_TRUNC) head('T', file, 0, 0);
        file_of[fd] = file + 1;
        synced[fd] = (flags & O_DSYNC) != 0; /* O_SYNC has its bit */
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

static uint64_t where(int fd) {
    off_t end = fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
    return end < 0 ? 0 : end;
}

#define REAL(name, result, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define MODE \
    mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(#name, int, const char *, int, ...); \
        MODE return keep(real(instead(path), flags, mode), path, flags); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int directory, const char *path, int flags, ...) { \
        REAL(#name, int, int, const char *, int, ...); \
        MODE return keep(real(directory, instead(path), flags, mode), path, flags); \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
    REAL("close", int, int);
    if (fd >= 0 && fd < MAX_FD) file_of[fd] = 0;
    return real(fd);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    REAL("write", ssize_t, int, const void *, size_t);
    uint64_t at = known(fd) ? where(fd) : 0;
    ssize_t done = real(fd, bytes, length);
    if (done > 0 && known(fd)) tell_bytes(fd, at, bytes, done);
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL("writev", ssize_t, int, const struct iovec *, int);
    uint64_t at = known(fd) ? where(fd) : 0;
    ssize_t done = real(fd, parts, count);
    if (done > 0 && known(fd)) tell_parts(fd, at, parts, count, done);
    return done;
}

#define PWRITE(name, offset) \
    ssize_t name(int fd, const void *bytes, size_t length, offset at) { \
        REAL(#name, ssize_t, int, const void *, size_t, offset); \
        ssize_t done = real(fd, bytes, length, at); \
        if (done > 0 && known(fd)) tell_bytes(fd, at, bytes, done); \
        return done; \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define PWRITEV(name, offset) \
    ssize_t name(int fd, const struct iovec *parts, int count, offset at) { \
        REAL(#name, ssize_t, int, const struct iovec *, int, offset); \
        ssize_t done = real(fd, parts, count, at); \
        if (done > 0 && known(fd)) tell_parts(fd, at, parts, count, done); \
        return done; \
    }
PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)

#define CUT(name, offset) \
    int name(int fd, offset length) { \
        REAL(#name, int, int, offset); \
        int failed = real(fd, length); \
        if (!failed && known(fd)) tell('T', fd, length); \
        return failed; \
    }
CUT(ftruncate, off_t)
CUT(ftruncate64, off64_t)

#define SYNC(name) \
    int name(int fd) { \
        REAL(#name, int, int); \
        if (!known(fd)) return real(fd); \
        uint64_t began = tell('B', fd, 0); \
        int failed = real(fd); \
        if (!failed) tell('S', fd, began); \
        return failed; \
    }
SYNC(fsync)
SYNC(fdatasync)

int rename(const char *from, const char *to) {
    REAL("rename", int, const char *, const char *);
    int failed = real(from, to);
    pthread_mutex_lock(&lock);
    int file = 0;
    while (file < files && strcmp(paths[file], from)) file++;
    if (!failed && out >= 0 && file < files) {
        head('R', file, 0, strlen(to));
        put(to, strlen(to));
    }
    pthread_mutex_unlock(&lock);
    return failed;
}

#define MAP(name, offset) \
    void *name(void *address, size_t length, int protection, int flags, int fd, offset at) { \
        REAL(#name, void *, void *, size_t, int, int, int, offset); \
        if (fd >= 0 && known(fd) && flags & MAP_SHARED && protection & PROT_WRITE) tell('M', fd, at); \
        return real(address, length, protection, flags, fd, at); \
    }
MAP(mmap, off_t)
MAP(mmap64, off64_t)
