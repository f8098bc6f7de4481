/* A CUDA driver without a GPU, for tests: device memory is a counter, copies to the host give zeros, launches do nothing.
 *
 * What it keeps is what a compiler can judge: each module's PTX goes to $FAKE_CUDA_DIR/NNNN.ptx, and each launch adds a
 * line "NNNN grid block shared" to $FAKE_CUDA_DIR/launches. So a real run of the program, with the real NVRTC, compiles
 * exactly the kernels that it would launch on a device of compute capability $FAKE_CUDA_CAPABILITY (80, 90, ...).
 *
 * The names, argument orders and numbers are the driver API's (cuda.h); only what cubecl-cuda calls is here.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Status;
typedef unsigned long long Pointer;
#define OK 0

static unsigned long long next_pointer = 0x700000000000ull;
static int modules = 0;

static FILE *open_in_dir(const char *name, const char *mode) {
    char path[4096];
    const char *dir = getenv("FAKE_CUDA_DIR");
    snprintf(path, sizeof path, "%s/%s", dir ? dir : ".", name);
    FILE *file = fopen(path, mode);
    if (!file) abort();
    return file;
}

static int capability(void) {
    const char *text = getenv("FAKE_CUDA_CAPABILITY");
    return text ? atoi(text) : 80;
}

Status cuInit(unsigned flags) { (void)flags; return OK; }
Status cuDriverGetVersion(int *version) { *version = 13040; return OK; }
Status cuDeviceGetCount(int *count) { *count = 1; return OK; }
Status cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal == 0 ? OK : 101; }
Status cuDeviceGetName(char *name, int len, int device) {
    (void)device;
    snprintf(name, (size_t)len, "Fake sm_%d", capability());
    return OK;
}
Status cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = 80ull << 30; return OK; }

/* CUdevice_attribute */
Status cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    switch (attribute) {
    case 1: *value = 1024; break;                        /* threads a block */
    case 2: case 3: *value = 1024; break;                /* block x, y */
    case 4: *value = 64; break;                          /* block z */
    case 5: *value = 2147483647; break;                  /* grid x */
    case 6: case 7: *value = 65535; break;               /* grid y, z */
    case 8: *value = 48 << 10; break;                    /* shared memory a block */
    case 10: *value = 32; break;                         /* warp */
    case 16: *value = capability() >= 90 ? 132 : 108; break; /* multiprocessors */
    case 75: *value = capability() / 10; break;          /* compute capability */
    case 76: *value = capability() % 10; break;
    case 97: *value = (capability() >= 90 ? 227 : 163) << 10; break; /* opt-in shared memory */
    case 115: *value = 1; break;                         /* memory pools */
    default: *value = 0;
    }
    return OK;
}

Status cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; *context = (void *)1; return OK; }
Status cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return OK; }
Status cuCtxSetCurrent(void *context) { (void)context; return OK; }
Status cuCtxGetCurrent(void **context) { *context = (void *)1; return OK; }
Status cuCtxSynchronize(void) { return OK; }

Status cuStreamCreate(void **stream, unsigned flags) { (void)flags; *stream = malloc(1); return OK; }
Status cuStreamSynchronize(void *stream) { (void)stream; return OK; }
Status cuStreamDestroy_v2(void *stream) { free(stream); return OK; }
Status cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    (void)stream; (void)event; (void)flags;
    return OK;
}
Status cuEventCreate(void **event, unsigned flags) { (void)flags; *event = malloc(1); return OK; }
Status cuEventDestroy_v2(void *event) { free(event); return OK; }
Status cuEventRecord(void *event, void *stream) { (void)event; (void)stream; return OK; }
Status cuEventSynchronize(void *event) { (void)event; return OK; }
Status cuEventQuery(void *event) { (void)event; return OK; }

static Status allocate(Pointer *pointer, size_t bytes) {
    *pointer = next_pointer;
    next_pointer += (bytes + 511) / 512 * 512;
    return OK;
}
Status cuMemAlloc_v2(Pointer *pointer, size_t bytes) { return allocate(pointer, bytes); }
Status cuMemAllocAsync(Pointer *pointer, size_t bytes, void *stream) { (void)stream; return allocate(pointer, bytes); }
Status cuMemFree_v2(Pointer pointer) { (void)pointer; return OK; }
Status cuMemFreeAsync(Pointer pointer, void *stream) { (void)pointer; (void)stream; return OK; }
Status cuMemGetInfo_v2(size_t *unused, size_t *total) { *unused = *total = 80ull << 30; return OK; }
Status cuMemAllocHost_v2(void **pointer, size_t bytes) { *pointer = malloc(bytes); return *pointer ? OK : 2; }
Status cuMemFreeHost(void *pointer) { free(pointer); return OK; }
Status cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t bytes, void *stream) {
    (void)to; (void)from; (void)bytes; (void)stream;
    return OK;
}
Status cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t bytes, void *stream) {
    (void)from; (void)stream;
    memset(to, 0, bytes);
    return OK;
}

/* CUDA_MEMCPY2D */
struct Copy2D {
    size_t src_x, src_y;
    int src_type;
    const void *src_host;
    Pointer src_device;
    void *src_array;
    size_t src_pitch, dst_x, dst_y;
    int dst_type;
    void *dst_host;
    Pointer dst_device;
    void *dst_array;
    size_t dst_pitch, width, height;
};
Status cuMemcpy2DAsync_v2(const struct Copy2D *copy, void *stream) {
    (void)stream;
    if (copy->dst_type == 1)
        for (size_t row = 0; row < copy->height; row++)
            memset((char *)copy->dst_host + (copy->dst_y + row) * copy->dst_pitch + copy->dst_x, 0, copy->width);
    return OK;
}

/* A module and its function are the number of the PTX. */
Status cuModuleLoadData(void **module, const void *image) {
    char name[32];
    snprintf(name, sizeof name, "%04d.ptx", ++modules);
    FILE *file = open_in_dir(name, "w");
    fputs(image, file);
    fclose(file);
    *module = (void *)(size_t)modules;
    return OK;
}
Status cuModuleGetFunction(void **function, void *module, const char *name) {
    (void)name;
    *function = module;
    return OK;
}
Status cuModuleUnload(void *module) { (void)module; return OK; }
Status cuFuncSetAttribute(void *function, int attribute, int value) {
    (void)function; (void)attribute; (void)value;
    return OK;
}
Status cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, void *stream, void **arguments, void **extra) {
    (void)stream; (void)arguments; (void)extra;
    FILE *file = open_in_dir("launches", "a");
    fprintf(file, "%04zu %ux%ux%u %ux%ux%u %u\n", (size_t)function, gx, gy, gz, bx, by, bz, shared);
    fclose(file);
    /* What the device itself would refuse. */
    return gx && gy && gz && gy <= 65535 && gz <= 65535 && bx * by * bz <= 1024 ? OK : 1;
}

Status cuTensorMapEncodeTiled(void *map) { memset(map, 0, 128); return OK; }
Status cuTensorMapEncodeIm2col(void *map) { memset(map, 0, 128); return OK; }
Status cuTensorMapEncodeIm2colWide(void *map) { memset(map, 0, 128); return OK; }

/* NVRTC asks the driver for private tables where it finds one, and does without where there is none. */
Status cuGetExportTable(const void **table, const void *id) { (void)id; *table = NULL; return 500; }

Status cuGetErrorName(int error, const char **text) { (void)error; *text = "CUDA_ERROR_FAKE"; return OK; }
Status cuGetErrorString(int error, const char **text) { (void)error; *text = "the fake driver refused"; return OK; }
