/* A stand-in for libnvidia-ml.so.1: the NVML functions that the tuner calls, over devices that
 * live in a shared, memory-mapped file. standin.py beside it has the same layout and steers them,
 * from any process and while they are in use. Nothing here talks to a driver.
 *
 * A device's power is a rectangular wave (constant if both levels are equal). Each change of the
 * profile, limit or clock closes a segment, so the energy at any instant is an exact integral.
 * A device with an `emulated_path` is instead a GPU of the emulator's, in the file of that name
 * (tuner/emulator/device_file.py): what is set here is written there, and what it does is read.
 */
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_DEVICES 16
#define MAX_PROCESSES 16
#define MAX_FUNCTIONS 48
#define SEGMENTS 64
#define POINTS 4096

enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4,
       NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9 };
enum { SW_POWER_CAP = 0x4 };

typedef struct { double start_s, energy_j, low_w, high_w, period_s, duty, origin_s; } segment_t;
typedef struct { int32_t error, hang; double delay_s; int64_t calls; } injection_t;

typedef struct {
    char uuid[96], name[96];
    /* power profile: high_w for `duty` of each period, low_w for the rest */
    double low_w, high_w, period_s, duty, origin_s, idle_w;
    int32_t follows_limit, follows_clock;
    /* sensors */
    double counter_period_s, counter_gain, counter_offset_j, average_s;
    double counter_read_s; /* spent by each reading of the counter; an H200 takes 4 ms of a core */
    /* limits */
    uint32_t min_mw, max_mw, default_mw, limit_mw, enforced_mw, revert_to_mw;
    double revert_after_s, limit_set_s;
    uint32_t min_sm_mhz, max_sm_mhz, step_sm_mhz, lock_min_mhz, lock_max_mhz, idle_sm_mhz;
    uint32_t memory_mhz, temperature_c, gpu_percent, memory_percent, mig_mode, process_count;
    uint64_t memory_total_bytes, memory_used_bytes, event_reasons;
    uint32_t pids[MAX_PROCESSES];
    uint64_t process_bytes[MAX_PROCESSES];
    uint32_t segment_count, persistence_mode;
    segment_t segments[SEGMENTS];
    injection_t injections[MAX_FUNCTIONS];
    char emulated_path[240];
    uint64_t emulated_index;
    /* workload power profiles: one bit each, of the first 32; `blocked` are requested in vain */
    uint32_t profiles_mask, requested_mask, blocked_mask, profiles_pad;
} device_t;

/* A GPU in the emulator's file; see its layout there. */
typedef struct { double time_s, energy_j, busy_s, after_w; } point_t;
typedef struct {
    char uuid[96], name[96];
    uint64_t facts[8];
    uint64_t limit_mw, locked_mhz;
    double coolant_c, kelvin_per_w;
    uint64_t unused[4];
    uint64_t pid, memory_used_bytes, sm_clock_mhz, is_held_back, written, unused_too[19];
    point_t points[POINTS];
} emulated_t;

typedef struct {
    uint32_t device_count, pad;
    char driver_version[80];
    injection_t injections[MAX_FUNCTIONS];
    device_t devices[MAX_DEVICES];
} state_t;

typedef device_t *handle_t;

static const char *const FUNCTIONS[] = {
    "nvmlInit", "nvmlShutdown", "nvmlSystemGetDriverVersion", "nvmlDeviceGetCount",
    "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetName",
    "nvmlDeviceGetUUID", "nvmlDeviceGetIndex", "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetPowerUsage", "nvmlDeviceGetFieldValues", "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetMaxClockInfo", "nvmlDeviceGetTemperature", "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetPowerManagementLimit", "nvmlDeviceGetPowerManagementDefaultLimit",
    "nvmlDeviceGetPowerManagementLimitConstraints", "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceSetPowerManagementLimit", "nvmlDeviceSetGpuLockedClocks",
    "nvmlDeviceResetGpuLockedClocks", "nvmlDeviceGetSupportedMemoryClocks",
    "nvmlDeviceGetSupportedGraphicsClocks", "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses", "nvmlDeviceGetMigMode",
    "nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceWorkloadPowerProfileGetProfilesInfo",
    "nvmlDeviceWorkloadPowerProfileGetCurrentProfiles",
    "nvmlDeviceWorkloadPowerProfileSetRequestedProfiles",
    "nvmlDeviceWorkloadPowerProfileClearRequestedProfiles",
};
#define FUNCTION_COUNT ((int)(sizeof FUNCTIONS / sizeof *FUNCTIONS))

static state_t *state;
static int state_fd = -1;
static int references;
static pthread_mutex_t threads = PTHREAD_MUTEX_INITIALIZER;

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void nap(double seconds) {
    struct timespec t = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
    nanosleep(&t, NULL);
}

/* Take that long of a core. */
static void spend(double seconds) {
    struct timespec t;
    double end_s = 0;
    while (seconds > 0) {
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        double spent_s = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
        if (!end_s) end_s = spent_s + seconds;
        if (spent_s >= end_s) return;
    }
}

void standin_lock(void) { pthread_mutex_lock(&threads); flock(state_fd, LOCK_EX); }
void standin_unlock(void) { flock(state_fd, LOCK_UN); pthread_mutex_unlock(&threads); }

int standin_open(const char *path) {
    if (state) { munmap(state, sizeof *state); close(state_fd); state = NULL; }
    state_fd = open(path, O_RDWR | O_CLOEXEC);
    if (state_fd < 0) return -1;
    void *map = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, state_fd, 0);
    if (map == MAP_FAILED) { close(state_fd); return -1; }
    state = map;
    return 0;
}

size_t standin_state_size(void) { return sizeof(state_t); }
size_t standin_device_size(void) { return sizeof(device_t); }
size_t standin_emulated_size(void) { return sizeof(emulated_t); }

int standin_function_index(const char *name) {
    for (int i = 0; i < FUNCTION_COUNT; i++)
        if (strcmp(FUNCTIONS[i], name) == 0) return i;
    return -1;
}

/* ------------------------------------------------------------------ the emulator's GPUs */

/* The GPU of the emulator's behind a device, NULL if there is none. Mapped once per process. */
static emulated_t *emulated(const device_t *d) {
    static struct { char path[240]; emulated_t *gpus; } maps[MAX_DEVICES];
    if (!d->emulated_path[0]) return NULL;
    int i = (int)(d - state->devices);
    if (!maps[i].gpus || strcmp(maps[i].path, d->emulated_path)) {
        int fd = open(d->emulated_path, O_RDWR | O_CLOEXEC);
        struct stat s;
        if (fd < 0 || fstat(fd, &s)) abort(); /* a mistake of the test */
        char *map = mmap(NULL, (size_t)s.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        if (map == MAP_FAILED) abort();
        strcpy(maps[i].path, d->emulated_path);
        maps[i].gpus = (emulated_t *)(map + 64);
    }
    return &maps[i].gpus[d->emulated_index];
}

/* Energy (J) and busy time (s) up to t. */
static point_t emulated_at(const emulated_t *e, double t) {
    uint64_t written = __atomic_load_n(&e->written, __ATOMIC_ACQUIRE);
    point_t later = {0}, p = {0};
    for (uint64_t n = 0; n + 1 < POINTS && n < written; n++, later = p) {
        p = e->points[(written - 1 - n) % POINTS];
        if (p.time_s > t) continue;
        double share = n && later.time_s > p.time_s ? (t - p.time_s) / (later.time_s - p.time_s) : 0;
        if (!n) p.energy_j += p.after_w * (t - p.time_s);
        p.energy_j += share * (later.energy_j - p.energy_j);
        p.busy_s += share * (later.busy_s - p.busy_s);
        return p;
    }
    return p; /* older than all there is */
}

/* NVML's readings change ten times a second, and are means of the last `over_s`. */
static double emulated_w(const emulated_t *e, double t, double over_s) {
    t = floor(t * 10) / 10;
    return (emulated_at(e, t).energy_j - emulated_at(e, t - over_s).energy_j) / over_s;
}
static unsigned emulated_percent(const emulated_t *e, double t) {
    t = floor(t * 10) / 10;
    return (unsigned)(100 * (emulated_at(e, t).busy_s - emulated_at(e, t - 1).busy_s) + 0.5);
}

/* The process on it, 0 if there is none or it has died. */
static unsigned emulated_pid(const emulated_t *e) {
    char path[64], state_of = 'X';
    snprintf(path, sizeof path, "/proc/%llu/stat", (unsigned long long)e->pid);
    FILE *file = e->pid ? fopen(path, "r") : NULL;
    if (!file) return 0;
    if (fscanf(file, "%*d (%*[^)]) %c", &state_of) != 1) state_of = 'X';
    fclose(file);
    return state_of == 'Z' || state_of == 'X' ? 0 : (unsigned)e->pid;
}

/* ------------------------------------------------------------------ power and energy */

static uint32_t sm_clock_mhz(const device_t *d) {
    if (d->emulated_path[0]) return (uint32_t)emulated(d)->sm_clock_mhz;
    uint32_t mhz = d->idle_sm_mhz ? d->idle_sm_mhz : d->max_sm_mhz;
    if (d->lock_max_mhz) {
        if (mhz > d->lock_max_mhz) mhz = d->lock_max_mhz;
        if (mhz < d->lock_min_mhz) mhz = d->lock_min_mhz;
    }
    return mhz;
}

static uint32_t enforced_mw(const device_t *d) {
    return d->enforced_mw && d->enforced_mw < d->limit_mw ? d->enforced_mw : d->limit_mw;
}

static double at_clock_w(const device_t *d, double watts) {
    if (!d->follows_clock || watts <= d->idle_w) return watts;
    double share = (double)sm_clock_mhz(d) / (double)d->max_sm_mhz;
    return d->idle_w + (watts - d->idle_w) * share * share;
}

static double effective_w(const device_t *d, double watts) {
    watts = at_clock_w(d, watts);
    double limit_w = enforced_mw(d) / 1e3;
    return d->follows_limit && watts > limit_w ? limit_w : watts;
}

/* Seconds at the high level in [origin, t). */
static double high_seconds(const segment_t *s, double t) {
    double whole = floor((t - s->origin_s) / s->period_s);
    double rest = (t - s->origin_s) - whole * s->period_s;
    double high = s->duty * s->period_s;
    return whole * high + (rest < high ? rest : high);
}

static double segment_energy_j(const segment_t *s, double t) {
    double high = high_seconds(s, t) - high_seconds(s, s->start_s);
    return s->energy_j + s->high_w * high + s->low_w * (t - s->start_s - high);
}

static const segment_t *segment_at(const device_t *d, double t) {
    for (uint32_t i = d->segment_count; i-- > 1;)
        if (d->segments[i].start_s <= t) return &d->segments[i];
    return &d->segments[0];
}

static double power_w(const device_t *d, double t) {
    if (d->emulated_path[0]) return emulated_w(emulated(d), t, 0.1);
    const segment_t *s = segment_at(d, t);
    double phase = fmod(t - s->origin_s, s->period_s);
    if (phase < 0) phase += s->period_s;
    return phase < s->duty * s->period_s ? s->high_w : s->low_w;
}

/* Begin a new segment with what the device is set to now. Call with the lock held. */
static void changed(device_t *d, double t) {
    if (d->emulated_path[0]) {
        emulated(d)->limit_mw = enforced_mw(d);
        emulated(d)->locked_mhz = d->lock_max_mhz;
        return;
    }
    segment_t next = {t, 0, effective_w(d, d->low_w), effective_w(d, d->high_w), d->period_s,
                      d->duty, d->origin_s};
    if (d->segment_count) next.energy_j = segment_energy_j(segment_at(d, t), t);
    if (d->segment_count == SEGMENTS) {
        memmove(d->segments, d->segments + 1, (SEGMENTS - 1) * sizeof *d->segments);
        d->segment_count--;
    }
    d->segments[d->segment_count++] = next;
}

void standin_changed(int index) { changed(&state->devices[index], now_s()); }

static double energy_j(const device_t *d, double t) {
    if (d->emulated_path[0]) return emulated_at(emulated(d), t).energy_j;
    return segment_energy_j(segment_at(d, t), t);
}

double standin_energy_j(int index, double t) { return energy_j(&state->devices[index], t); }

static double counter_j(const device_t *d, double t) {
    spend(d->counter_read_s);
    if (d->counter_period_s > 0) t = floor(t / d->counter_period_s) * d->counter_period_s;
    double j = energy_j(d, t) * d->counter_gain + d->counter_offset_j;
    return j > 0 ? j : 0;
}

static double average_w(const device_t *d, double t) {
    if (d->emulated_path[0]) return emulated_w(emulated(d), t, d->average_s);
    double from = t - d->average_s;
    return (segment_energy_j(segment_at(d, t), t) - segment_energy_j(segment_at(d, from), from)) /
           d->average_s;
}

/* ------------------------------------------------------------------ entering a call */

static int act(injection_t *i) {
    i->calls++;
    if (i->delay_s > 0) nap(i->delay_s);
    while (*(volatile int32_t *)&i->hang) nap(0.01);
    return *(volatile int32_t *)&i->error;
}

/* What a test has asked of this function, for the whole library and for this device. */
static int entered(handle_t d, const char *name) {
    if (!state || !references) return UNINITIALIZED;
    int index = standin_function_index(name);
    int error = act(&state->injections[index]);
    if (error || !d) return error;
    if (d < state->devices || d >= state->devices + state->device_count) return INVALID_ARGUMENT;
    if ((error = act(&d->injections[index]))) return error;
    if (d->revert_after_s > 0 && d->limit_set_s > 0 && now_s() > d->limit_set_s + d->revert_after_s) {
        standin_lock(); /* somebody else puts the limit back */
        d->limit_mw = d->revert_to_mw ? d->revert_to_mw : d->default_mw;
        d->limit_set_s = 0;
        changed(d, now_s());
        standin_unlock();
    }
    return OK;
}

#define ENTER(device, name) do { int e = entered(device, name); if (e) return e; } while (0)
#define LOCKED(expression) do { standin_lock(); expression; standin_unlock(); } while (0)

static int put(char *to, unsigned size, const char *text) {
    if (strlen(text) + 1 > size) return INSUFFICIENT_SIZE;
    strcpy(to, text);
    return OK;
}

/* ------------------------------------------------------------------ the library */

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    const char *path = getenv("NVML_STANDIN_STATE");
    if (!references && (!path || standin_open(path))) return DRIVER_NOT_LOADED;
    references++;
    int error = entered(NULL, "nvmlInit");
    if (error) references--;
    return error;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) {
    ENTER(NULL, "nvmlShutdown");
    references--;
    return OK;
}
const char *nvmlErrorString(int code) {
    static char text[32];
    snprintf(text, sizeof text, "stand-in error %d", code);
    return text;
}
int nvmlSystemGetDriverVersion(char *to, unsigned size) {
    ENTER(NULL, "nvmlSystemGetDriverVersion");
    return put(to, size, state->driver_version);
}
int nvmlDeviceGetCount_v2(unsigned *count) {
    ENTER(NULL, "nvmlDeviceGetCount");
    *count = state->device_count;
    return OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle_t *d) {
    ENTER(NULL, "nvmlDeviceGetHandleByIndex");
    if (index >= state->device_count) return INVALID_ARGUMENT;
    *d = &state->devices[index];
    return OK;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, handle_t *d) {
    ENTER(NULL, "nvmlDeviceGetHandleByUUID");
    for (unsigned i = 0; i < state->device_count; i++)
        if (strcmp(state->devices[i].uuid, uuid) == 0) { *d = &state->devices[i]; return OK; }
    return NOT_FOUND;
}
int nvmlDeviceGetName(handle_t d, char *to, unsigned size) {
    ENTER(d, "nvmlDeviceGetName");
    return put(to, size, d->name);
}
int nvmlDeviceGetUUID(handle_t d, char *to, unsigned size) {
    ENTER(d, "nvmlDeviceGetUUID");
    return put(to, size, d->uuid);
}
int nvmlDeviceGetIndex(handle_t d, unsigned *index) {
    ENTER(d, "nvmlDeviceGetIndex");
    *index = (unsigned)(d - state->devices);
    return OK;
}
int nvmlDeviceGetTotalEnergyConsumption(handle_t d, unsigned long long *mj) {
    ENTER(d, "nvmlDeviceGetTotalEnergyConsumption");
    LOCKED(*mj = (unsigned long long)(counter_j(d, now_s()) * 1e3));
    return OK;
}
int nvmlDeviceGetPowerUsage(handle_t d, unsigned *mw) {
    ENTER(d, "nvmlDeviceGetPowerUsage");
    LOCKED(*mw = (unsigned)(average_w(d, now_s()) * 1e3));
    return OK;
}

typedef struct {
    uint32_t field, scope;
    int64_t timestamp_us, latency_us;
    int32_t type, error;
    union { double d; uint32_t u; uint64_t ull; } value;
} field_t;

static int field(handle_t d, field_t *f) {
    double t = now_s();
    f->timestamp_us = (int64_t)(t * 1e6);
    f->type = 1; /* unsigned int */
    switch (f->field) {
    case 83: f->type = 3; f->value.ull = (uint64_t)(counter_j(d, t) * 1e3); return OK;
    case 185: f->value.u = (uint32_t)(average_w(d, t) * 1e3); return OK;
    case 186: f->value.u = (uint32_t)(power_w(d, t) * 1e3); return OK;
    default: return NOT_SUPPORTED;
    }
}
/* What each field's own function answers when a test has set an error for it. */
static int field_error(handle_t d, uint32_t id) {
    if (id == 83)
        return d->injections[standin_function_index("nvmlDeviceGetTotalEnergyConsumption")].error;
    return OK;
}
int nvmlDeviceGetFieldValues(handle_t d, int count, field_t *fields) {
    ENTER(d, "nvmlDeviceGetFieldValues");
    standin_lock();
    for (int i = 0; i < count; i++) {
        int error = field_error(d, fields[i].field);
        fields[i].error = error ? error : field(d, &fields[i]);
    }
    standin_unlock();
    return OK;
}
int nvmlDeviceGetClockInfo(handle_t d, unsigned type, unsigned *mhz) {
    ENTER(d, "nvmlDeviceGetClockInfo");
    *mhz = type == 2 ? d->memory_mhz : sm_clock_mhz(d);
    return OK;
}
int nvmlDeviceGetMaxClockInfo(handle_t d, unsigned type, unsigned *mhz) {
    ENTER(d, "nvmlDeviceGetMaxClockInfo");
    *mhz = type == 2 ? d->memory_mhz : d->max_sm_mhz;
    return OK;
}
int nvmlDeviceGetTemperature(handle_t d, unsigned sensor, unsigned *celsius) {
    ENTER(d, "nvmlDeviceGetTemperature");
    (void)sensor;
    *celsius = d->temperature_c;
    if (d->emulated_path[0]) { /* in balance with the power of the last second */
        const emulated_t *e = emulated(d);
        *celsius = (unsigned)(e->coolant_c + e->kelvin_per_w * emulated_w(e, now_s(), 1.0) + 0.5);
    }
    return OK;
}
int nvmlDeviceGetUtilizationRates(handle_t d, unsigned *gpu_and_memory) {
    ENTER(d, "nvmlDeviceGetUtilizationRates");
    gpu_and_memory[0] = d->gpu_percent;
    gpu_and_memory[1] = d->memory_percent;
    if (d->emulated_path[0]) /* each step reads memory throughout */
        gpu_and_memory[0] = gpu_and_memory[1] = emulated_percent(emulated(d), now_s());
    return OK;
}
int nvmlDeviceGetMemoryInfo(handle_t d, unsigned long long *total_free_used) {
    ENTER(d, "nvmlDeviceGetMemoryInfo");
    uint64_t used = d->memory_used_bytes;
    if (d->emulated_path[0]) used = emulated_pid(emulated(d)) ? emulated(d)->memory_used_bytes : 0;
    total_free_used[0] = d->memory_total_bytes;
    total_free_used[1] = d->memory_total_bytes - used;
    total_free_used[2] = used;
    return OK;
}
int nvmlDeviceGetCurrentClocksEventReasons(handle_t d, unsigned long long *reasons) {
    ENTER(d, "nvmlDeviceGetCurrentClocksEventReasons");
    *reasons = d->event_reasons;
    if (d->emulated_path[0] && emulated(d)->is_held_back) *reasons |= SW_POWER_CAP;
    if (d->follows_limit && at_clock_w(d, d->high_w) > enforced_mw(d) / 1e3)
        *reasons |= SW_POWER_CAP;
    return OK;
}
int nvmlDeviceGetPowerManagementLimit(handle_t d, unsigned *mw) {
    ENTER(d, "nvmlDeviceGetPowerManagementLimit");
    *mw = d->limit_mw;
    return OK;
}
int nvmlDeviceGetPowerManagementDefaultLimit(handle_t d, unsigned *mw) {
    ENTER(d, "nvmlDeviceGetPowerManagementDefaultLimit");
    *mw = d->default_mw;
    return OK;
}
int nvmlDeviceGetPowerManagementLimitConstraints(handle_t d, unsigned *min_mw, unsigned *max_mw) {
    ENTER(d, "nvmlDeviceGetPowerManagementLimitConstraints");
    *min_mw = d->min_mw;
    *max_mw = d->max_mw;
    return OK;
}
int nvmlDeviceGetEnforcedPowerLimit(handle_t d, unsigned *mw) {
    ENTER(d, "nvmlDeviceGetEnforcedPowerLimit");
    *mw = enforced_mw(d);
    return OK;
}
int nvmlDeviceSetPowerManagementLimit(handle_t d, unsigned mw) {
    ENTER(d, "nvmlDeviceSetPowerManagementLimit");
    if (mw < d->min_mw || mw > d->max_mw) return INVALID_ARGUMENT;
    standin_lock();
    d->limit_mw = mw;
    d->limit_set_s = now_s();
    changed(d, d->limit_set_s);
    standin_unlock();
    return OK;
}
int nvmlDeviceSetGpuLockedClocks(handle_t d, unsigned min_mhz, unsigned max_mhz) {
    ENTER(d, "nvmlDeviceSetGpuLockedClocks");
    if (min_mhz > max_mhz || max_mhz < d->min_sm_mhz || min_mhz > d->max_sm_mhz)
        return INVALID_ARGUMENT;
    standin_lock();
    d->lock_min_mhz = min_mhz;
    d->lock_max_mhz = max_mhz;
    changed(d, now_s());
    standin_unlock();
    return OK;
}
int nvmlDeviceResetGpuLockedClocks(handle_t d) {
    ENTER(d, "nvmlDeviceResetGpuLockedClocks");
    standin_lock();
    d->lock_min_mhz = d->lock_max_mhz = 0;
    changed(d, now_s());
    standin_unlock();
    return OK;
}
int nvmlDeviceGetSupportedMemoryClocks(handle_t d, unsigned *count, unsigned *mhz) {
    ENTER(d, "nvmlDeviceGetSupportedMemoryClocks");
    unsigned room = *count;
    *count = 1;
    if (room < 1 || !mhz) return INSUFFICIENT_SIZE;
    mhz[0] = d->memory_mhz;
    return OK;
}
int nvmlDeviceGetSupportedGraphicsClocks(handle_t d, unsigned memory, unsigned *count,
                                         unsigned *mhz) {
    ENTER(d, "nvmlDeviceGetSupportedGraphicsClocks");
    if (memory != d->memory_mhz) return NOT_FOUND;
    unsigned room = *count;
    *count = (d->max_sm_mhz - d->min_sm_mhz) / d->step_sm_mhz + 1;
    if (room < *count || !mhz) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < *count; i++) mhz[i] = d->max_sm_mhz - i * d->step_sm_mhz;
    return OK;
}

typedef struct { unsigned pid; unsigned long long bytes; unsigned gpu, compute; } process_t;

int nvmlDeviceGetComputeRunningProcesses_v3(handle_t d, unsigned *count, process_t *found) {
    ENTER(d, "nvmlDeviceGetComputeRunningProcesses");
    unsigned room = *count;
    *count = d->process_count;
    if (d->emulated_path[0]) {
        const emulated_t *e = emulated(d);
        unsigned pid = emulated_pid(e);
        *count = pid != 0;
        if (pid && (!room || !found)) return INSUFFICIENT_SIZE;
        if (pid) *found = (process_t){pid, e->memory_used_bytes, ~0u, ~0u};
        return OK;
    }
    if (!d->process_count) return OK;
    if (room < d->process_count || !found) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < d->process_count; i++)
        found[i] = (process_t){d->pids[i], d->process_bytes[i], ~0u, ~0u};
    return OK;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(handle_t d, unsigned *count, process_t *found) {
    ENTER(d, "nvmlDeviceGetGraphicsRunningProcesses");
    (void)found;
    *count = 0;
    return OK;
}
int nvmlDeviceGetMigMode(handle_t d, unsigned *current, unsigned *pending) {
    ENTER(d, "nvmlDeviceGetMigMode");
    *current = *pending = d->mig_mode;
    return OK;
}
int nvmlDeviceGetPersistenceMode(handle_t d, unsigned *mode) {
    ENTER(d, "nvmlDeviceGetPersistenceMode");
    *mode = d->persistence_mode;
    return OK;
}

/* Blackwell and newer; layouts of nvml.h, version 1. */
typedef struct { unsigned mask[8]; } mask255_t;
typedef struct { unsigned version, id, priority; mask255_t conflicting; } profile_t;
typedef struct { unsigned version; mask255_t profiles; profile_t profile[255]; } profiles_info_t;
typedef struct { unsigned version; mask255_t profiles, requested, enforced; } current_profiles_t;
typedef struct { unsigned version; mask255_t requested; } requested_profiles_t;

int nvmlDeviceWorkloadPowerProfileGetProfilesInfo(handle_t d, profiles_info_t *info) {
    ENTER(d, "nvmlDeviceWorkloadPowerProfileGetProfilesInfo");
    if (!d->profiles_mask) return NOT_SUPPORTED;
    memset(&info->profiles, 0, sizeof info->profiles);
    info->profiles.mask[0] = d->profiles_mask;
    for (unsigned i = 0; i < 255; i++) info->profile[i].id = i;
    return OK;
}
int nvmlDeviceWorkloadPowerProfileGetCurrentProfiles(handle_t d, current_profiles_t *current) {
    ENTER(d, "nvmlDeviceWorkloadPowerProfileGetCurrentProfiles");
    if (!d->profiles_mask) return NOT_SUPPORTED;
    unsigned version = current->version;
    memset(current, 0, sizeof *current);
    current->version = version;
    current->profiles.mask[0] = d->profiles_mask;
    current->requested.mask[0] = d->requested_mask;
    current->enforced.mask[0] = d->requested_mask & ~d->blocked_mask;
    return OK;
}
int nvmlDeviceWorkloadPowerProfileSetRequestedProfiles(handle_t d, requested_profiles_t *asked) {
    ENTER(d, "nvmlDeviceWorkloadPowerProfileSetRequestedProfiles");
    if (!d->profiles_mask) return NOT_SUPPORTED;
    if (asked->requested.mask[0] & ~d->profiles_mask) return INVALID_ARGUMENT;
    LOCKED(d->requested_mask |= asked->requested.mask[0]);
    return OK;
}
int nvmlDeviceWorkloadPowerProfileClearRequestedProfiles(handle_t d, requested_profiles_t *asked) {
    ENTER(d, "nvmlDeviceWorkloadPowerProfileClearRequestedProfiles");
    if (!d->profiles_mask) return NOT_SUPPORTED;
    LOCKED(d->requested_mask &= ~asked->requested.mask[0]);
    return OK;
}
int nvmlDeviceGetCudaComputeCapability(handle_t d, int *major, int *minor) {
    ENTER(d, "nvmlDeviceGetCudaComputeCapability");
    *major = 9;
    *minor = 0;
    return OK;
}
int nvmlDeviceGetArchitecture(handle_t d, unsigned *architecture) {
    ENTER(d, "nvmlDeviceGetArchitecture");
    *architecture = 9; /* Hopper */
    return OK;
}
