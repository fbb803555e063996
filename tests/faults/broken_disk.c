/* A disk that fails when told to, put before the C library by LD_PRELOAD: see broken_disk.py.
 *
 * BROKEN_DISK_STATE names a file of 64 bytes, shared with the test: struct state below.
 * BROKEN_DISK_RULE is "CALLS|PART OF THE PATH|ERROR|FIRST|TIMES": CALLS of open, read, write, fsync, made of a file
 * whose path holds that part, fail with the error number ERROR from the FIRST such call on, TIMES times (0: for ever).
 * ERROR 0 writes the first half of what it is given and says so.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct state {
    _Atomic int64_t seen;    /* calls that the rule is about */
    _Atomic int64_t failed;  /* of them, those that failed */
    _Atomic int64_t off;     /* not 0: nothing fails and nothing is counted */
    _Atomic int64_t clock;   /* seconds by which the time of day is ahead */
    _Atomic int64_t asked;   /* times that somebody asked for it since it is */
    _Atomic int64_t left[3];
};

static struct state *state;
static char calls[64], part[1024];
static long error_number, first, times;

/* What is opened here must not pass through the functions below before they are known. */
__attribute__((constructor)) static void begin(void)
{
    const char *file = getenv("BROKEN_DISK_STATE"), *rule = getenv("BROKEN_DISK_RULE");
    if (file == NULL)
        return;
    if (rule != NULL && sscanf(rule, "%63[^|]|%1023[^|]|%ld|%ld|%ld", calls, part, &error_number, &first, &times) != 5)
        abort();
    int descriptor = open(file, O_RDWR | O_CLOEXEC);
    void *shared = MAP_FAILED;
    if (descriptor >= 0)
        shared = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (shared == MAP_FAILED)
        abort();
    close(descriptor);
    state = shared;
}

/* Looked for once a place: dlsym takes far longer than what it finds. */
#define REAL(name) ({ \
    static void *_Atomic found; \
    void *here = found; \
    if (here == NULL) \
        found = here = real(#name); \
    (__typeof__(&name))here; \
})

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (found == NULL)
        abort();
    return found;
}

/* Whether this call is to fail, and how: 0 it is not, -1 half of it, else the error number. */
static long fails(const char *call, const char *path)
{
    if (state == NULL || part[0] == 0 || path == NULL || state->off != 0)
        return 0;
    if (strstr(calls, call) == NULL || strstr(path, part) == NULL)
        return 0;
    int64_t number = atomic_fetch_add(&state->seen, 1) + 1;
    if (number < first || (times != 0 && number >= first + times))
        return 0;
    atomic_fetch_add(&state->failed, 1);
    return error_number == 0 ? -1 : error_number;
}

static long fails_at(const char *call, int descriptor)
{
    char link[64], path[4096];
    if (state == NULL || part[0] == 0 || descriptor < 0)
        return 0;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length <= 0)
        return 0;
    path[length] = 0;
    return fails(call, path);
}

#define REFUSE(why) do { errno = (int)(why); return -1; } while (0)

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        MODE(flags) \
        long why = fails("open", path); \
        if (why > 0) \
            REFUSE(why); \
        return REAL(name)(path, flags, mode); \
    }

#define OPEN_AT(name) \
    int name(int folder, const char *path, int flags, ...) \
    { \
        MODE(flags) \
        long why = fails("open", path); \
        if (why > 0) \
            REFUSE(why); \
        return REAL(name)(folder, path, flags, mode); \
    }

OPEN(open)
OPEN(open64)
OPEN_AT(openat)
OPEN_AT(openat64)

ssize_t read(int descriptor, void *target, size_t count)
{
    long why = fails_at("read", descriptor);
    if (why > 0)
        REFUSE(why);
    return REAL(read)(descriptor, target, count);
}

ssize_t pread(int descriptor, void *target, size_t count, off_t at)
{
    long why = fails_at("read", descriptor);
    if (why > 0)
        REFUSE(why);
    return REAL(pread)(descriptor, target, count, at);
}

ssize_t pread64(int descriptor, void *target, size_t count, off64_t at)
{
    long why = fails_at("read", descriptor);
    if (why > 0)
        REFUSE(why);
    return REAL(pread64)(descriptor, target, count, at);
}

ssize_t readv(int descriptor, const struct iovec *parts, int count)
{
    long why = fails_at("read", descriptor);
    if (why > 0)
        REFUSE(why);
    return REAL(readv)(descriptor, parts, count);
}

ssize_t write(int descriptor, const void *source, size_t count)
{
    long why = fails_at("write", descriptor);
    if (why > 0)
        REFUSE(why);
    return REAL(write)(descriptor, source, why < 0 && count > 1 ? count / 2 : count);
}

ssize_t pwrite(int descriptor, const void *source, size_t count, off_t at)
{
    long why = fails_at("write", descriptor);
    if (why > 0)
        REFUSE(why);
    return REAL(pwrite)(descriptor, source, why < 0 && count > 1 ? count / 2 : count, at);
}

ssize_t pwrite64(int descriptor, const void *source, size_t count, off64_t at)
{
    long why = fails_at("write", descriptor);
    if (why > 0)
        REFUSE(why);
    return REAL(pwrite64)(descriptor, source, why < 0 && count > 1 ? count / 2 : count, at);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count)
{
    long why = fails_at("write", descriptor);
    if (why > 0)
        REFUSE(why);
    if (why < 0 && parts[0].iov_len > 1)
        return REAL(write)(descriptor, parts[0].iov_base, parts[0].iov_len / 2);
    return REAL(writev)(descriptor, parts, count);
}

int fsync(int descriptor)
{
    long why = fails_at("fsync", descriptor);
    if (why > 0)
        REFUSE(why);
    return REAL(fsync)(descriptor);
}

int fdatasync(int descriptor)
{
    long why = fails_at("fsync", descriptor);
    if (why > 0)
        REFUSE(why);
    return REAL(fdatasync)(descriptor);
}

static int64_t ahead(void)
{
    if (state == NULL || state->clock == 0)
        return 0;
    atomic_fetch_add(&state->asked, 1);
    return state->clock;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int status = REAL(clock_gettime)(clock, now);
    if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += ahead();
    return status;
}

int gettimeofday(struct timeval *now, void *zone)
{
    int status = REAL(gettimeofday)(now, zone);
    if (status == 0)
        now->tv_sec += ahead();
    return status;
}

time_t time(time_t *now)
{
    time_t value = REAL(time)(NULL) + ahead();
    if (now != NULL)
        *now = value;
    return value;
}
