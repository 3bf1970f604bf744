/* NVIDIA's management library as a machine with three GPUs has it:

   0  lost: nothing can be asked of it
   1  at 0000:c1:00.0: tells all, by a new driver's calls
   2  at 0000:c2:00.0: tells no utilisation, no power and no memory; its temperature by the older call alone

   Compiled with -DINIT=N it fails at once with that error, with -DHANGS_AT=N it never answers for GPU N.
   Types and numbers: nvml.h. */
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#ifndef INIT
#define INIT OK
#endif
#ifndef HANGS_AT
#define HANGS_AT -1
#endif

enum { OK = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, GPU_IS_LOST = 15, VERSION_MISMATCH = 25 };
enum { LOST = 0, WHOLE = 1, PARTIAL = 2, COUNT = 3 };
#define GIB (1ull << 30)

typedef struct { int number; } *gpu;
static struct { int number; } gpus[COUNT] = {{0}, {1}, {2}};

int nvmlInitWithFlags(unsigned flags) { return INIT; }

int nvmlSystemGetDriverVersion(char *version, unsigned size) {
    snprintf(version, size, "580.65.06");
    return OK;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = COUNT;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, gpu *handle) {
    while ((int)index == HANGS_AT) pause();
    if (index >= COUNT) return INVALID_ARGUMENT;
    *handle = (gpu)&gpus[index];
    return index == LOST ? GPU_IS_LOST : OK;
}

typedef struct {
    char legacy_id[16];
    unsigned domain, bus, device, pci_device, pci_subsystem;
    char id[32];
} pci_info;

int nvmlDeviceGetPciInfo_v3(gpu handle, pci_info *info) {
    *info = (pci_info){.domain = 0, .bus = 0xC0 + handle->number, .device = 0};
    snprintf(info->id, sizeof info->id, "00000000:%02X:00.0", info->bus);
    return OK;
}

int nvmlDeviceGetUUID(gpu handle, char *uuid, unsigned size) {
    snprintf(uuid, size, "GPU-%d", handle->number);
    return OK;
}

typedef struct { unsigned gpu, memory; } utilization;

int nvmlDeviceGetUtilizationRates(gpu handle, utilization *rates) {
    if (handle->number == PARTIAL) return NOT_SUPPORTED;
    rates->gpu = 87;
    rates->memory = 0;
    return OK;
}

typedef struct { unsigned version; uint64_t total, reserved, free, used; } memory_v2;

int nvmlDeviceGetMemoryInfo_v2(gpu handle, memory_v2 *memory) {
    if (memory->version != (sizeof *memory | 2 << 24)) return VERSION_MISMATCH;
    if (handle->number == PARTIAL) return NOT_SUPPORTED;
    memory->total = 80 * GIB;
    memory->reserved = 1 * GIB;
    memory->used = 9 * GIB;
    memory->free = 70 * GIB;
    return OK;
}

typedef struct { unsigned version, sensor; int celsius; } temperature_v1;

int nvmlDeviceGetTemperatureV(gpu handle, temperature_v1 *temperature) {
    if (temperature->version != (sizeof *temperature | 1 << 24)) return VERSION_MISMATCH;
    if (temperature->sensor != 0) return INVALID_ARGUMENT;
    if (handle->number == PARTIAL) return NOT_SUPPORTED;
    temperature->celsius = 64;
    return OK;
}

int nvmlDeviceGetTemperature(gpu handle, unsigned sensor, unsigned *celsius) {
    if (sensor != 0) return INVALID_ARGUMENT;
    *celsius = 47;
    return OK;
}

int nvmlDeviceGetPowerUsage(gpu handle, unsigned *milliwatts) {
    *milliwatts = 212500;
    return handle->number == PARTIAL ? NOT_SUPPORTED : OK;
}

int nvmlDeviceGetEnforcedPowerLimit(gpu handle, unsigned *milliwatts) {
    *milliwatts = 350000;
    return handle->number == PARTIAL ? NOT_SUPPORTED : OK;
}
