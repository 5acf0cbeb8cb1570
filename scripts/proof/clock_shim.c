/* Preloaded into a process, shifts its wall clock by the nanoseconds in the file that PROOF_WALL_CLOCK names.
 * The monotonic clocks stay what they are, and so does the machine's own clock. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int (*machine)(clockid_t, struct timespec *);
static const volatile int64_t *offset_ns;

__attribute__((constructor)) static void prepare(void)
{
    const char *file = getenv("PROOF_WALL_CLOCK");
    int opened = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;

    machine = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (opened < 0)
        return;
    void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, opened, 0);
    if (mapped != MAP_FAILED)
        offset_ns = mapped;
    close(opened);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (!machine)
        prepare();
    int failed = machine(clock, now);
    if (failed || !offset_ns || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
        return failed;
    int64_t ns = now->tv_nsec + *offset_ns % 1000000000;
    now->tv_sec += *offset_ns / 1000000000 + (ns >= 1000000000) - (ns < 0);
    now->tv_nsec = (ns + 1000000000) % 1000000000;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &precise))
        return -1;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec precise;
    if (clock_gettime(CLOCK_REALTIME_COARSE, &precise))
        return -1;
    if (now)
        *now = precise.tv_sec;
    return precise.tv_sec;
}
