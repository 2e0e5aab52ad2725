/* A CUDA driver without a GPU, for tests: device memory is host memory, work waits on its stream until somebody synchronises, and
 * wrong use is an error as on a real one: no current context, host memory that is not pinned, memory that is freed, a stream that
 * captures and is synchronised. With cuda.h, the compiler compares all prototypes with the real ones. A module's image is the path of a
 * library, whose functions take a kernel's argument struct and the number of threads along y and x (tests/cuda/host_loops.cpp).
 *
 * Environment: STAND_IN_DEVICES (1), STAND_IN_INIT_ERROR (0), STAND_IN_MEMORY in bytes (2^31), STAND_IN_NO_CAPTURE (network or kernels: what no
 * capture takes).
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__has_include) && __has_include(<cuda.h>)
#include <cuda.h>
#else
typedef int CUresult, CUdevice, CUstreamCaptureMode;
typedef unsigned long long CUdeviceptr, cuuint64_t;
typedef struct CUctx_st *CUcontext;
typedef struct CUstream_st *CUstream;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef int CUjit_option;
#define CU_LAUNCH_PARAM_END ((void *)0)
#define CU_LAUNCH_PARAM_BUFFER_POINTER ((void *)1)
#define CU_LAUNCH_PARAM_BUFFER_SIZE ((void *)2)
enum {
    CUDA_SUCCESS = 0, CUDA_ERROR_INVALID_VALUE = 1, CUDA_ERROR_OUT_OF_MEMORY = 2, CUDA_ERROR_NO_DEVICE = 100, CUDA_ERROR_INVALID_CONTEXT = 201,
    CUDA_ERROR_ILLEGAL_ADDRESS = 700, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901,
    CUDA_ERROR_ILLEGAL_STATE = 401, CUDA_ERROR_INVALID_HANDLE = 400, CUDA_ERROR_INVALID_IMAGE = 200, CUDA_ERROR_NOT_FOUND = 500
};
#define cuStreamBeginCapture cuStreamBeginCapture_v2
#define cuGraphInstantiate cuGraphInstantiateWithFlags
#define cuMemAlloc cuMemAlloc_v2
#define cuMemFree cuMemFree_v2
#define cuMemcpyHtoD cuMemcpyHtoD_v2
#define cuMemcpyDtoH cuMemcpyDtoH_v2
#define cuMemcpyHtoDAsync cuMemcpyHtoDAsync_v2
#define cuMemcpyDtoHAsync cuMemcpyDtoHAsync_v2
#define cuCtxPushCurrent cuCtxPushCurrent_v2
#define cuCtxPopCurrent cuCtxPopCurrent_v2
#define cuStreamDestroy cuStreamDestroy_v2
#define cuDevicePrimaryCtxRelease cuDevicePrimaryCtxRelease_v2
#endif

enum { UPLOAD, DOWNLOAD, NETWORK, KERNEL, MAX = 256, ARGS = 128 };
typedef void (*Loops)(const void *args, const int *threads_yx);
typedef struct { int kind; char *target, *source; size_t bytes; int height, width; Loops loops; char args[ARGS]; } Work;
typedef struct { Work work[MAX]; int count; } List;
typedef struct { List waiting, captured; int capturing, spoiled; } Stream;
typedef struct { char *address; size_t bytes; int on_device; } Memory;

static Memory memories[MAX];
static int retained, contexts_retained_in_all, live_streams, live_graphs, live_modules;
static size_t used;
static char primary;
static _Thread_local CUcontext stack[MAX];
static _Thread_local int depth;
static _Thread_local Stream *capturing;

static size_t setting(const char *name, size_t otherwise) { return getenv(name) ? strtoull(getenv(name), NULL, 10) : otherwise; }
static int usable(void) { return depth > 0 && retained > 0; }
static Memory *holding(const void *address, size_t bytes, int on_device) {
    for (Memory *m = memories; m < memories + MAX; m++)
        if (m->address && m->on_device == on_device && (char *)address >= m->address && (char *)address + bytes <= m->address + m->bytes) return m;
    return NULL;
}
static int keep(void **address, size_t bytes, int on_device) {
    if (!usable()) return CUDA_ERROR_INVALID_CONTEXT;
    if (capturing) { capturing->spoiled = 1; return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED; }
    if (on_device && used + bytes > setting("STAND_IN_MEMORY", (size_t)1 << 31)) return CUDA_ERROR_OUT_OF_MEMORY;
    for (Memory *m = memories; m < memories + MAX; m++)
        if (!m->address) {
            m->address = malloc(bytes); m->bytes = bytes; m->on_device = on_device;
            memset(m->address, 0x7f, bytes); /* not what a test expects by chance */
            used += on_device ? bytes : 0;
            *address = m->address;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_OUT_OF_MEMORY;
}
static int let_go(void *address, int on_device) {
    if (!usable()) return CUDA_ERROR_INVALID_CONTEXT;
    Memory *m = holding(address, 1, on_device);
    if (!m || m->address != address) return CUDA_ERROR_INVALID_VALUE;
    if (capturing) { capturing->spoiled = 1; return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED; }
    used -= on_device ? m->bytes : 0;
    free(m->address);
    m->address = NULL;
    return CUDA_SUCCESS;
}
static int enqueue(Stream *stream, Work work) {
    if (!usable()) return CUDA_ERROR_INVALID_CONTEXT;
    const char *uncapturable = stream->capturing ? getenv("STAND_IN_NO_CAPTURE") : NULL;
    if (uncapturable && work.kind == (strcmp(uncapturable, "kernels") ? NETWORK : KERNEL)) stream->spoiled = 1;
    if (stream->spoiled) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    List *list = stream->capturing ? &stream->captured : &stream->waiting;
    if (list->count == MAX) return CUDA_ERROR_ILLEGAL_STATE;
    list->work[list->count++] = work;
    return CUDA_SUCCESS;
}
static int do_work(const Work *w) {
    size_t pixels = (size_t)w->height * w->width;
    if (w->kind == KERNEL) {
        const int threads_yx[2] = {w->height, w->width};
        w->loops(w->args, threads_yx);
        return CUDA_SUCCESS;
    }
    if (w->kind == NETWORK) { /* depth = 1 + mean of the channels, as the ONNX model of the tests */
        if (!holding(w->source, 12 * pixels, 1) || !holding(w->target, 4 * pixels, 1)) return CUDA_ERROR_ILLEGAL_ADDRESS;
        const float *in = (const float *)w->source;
        for (size_t i = 0; i < pixels; i++) ((float *)w->target)[i] = 1 + (in[i] + in[i + pixels] + in[i + 2 * pixels]) / 3;
        return CUDA_SUCCESS;
    }
    if (!holding(w->target, w->bytes, w->kind == UPLOAD) || !holding(w->source, w->bytes, w->kind == DOWNLOAD)) return CUDA_ERROR_ILLEGAL_ADDRESS;
    memcpy(w->target, w->source, w->bytes);
    return CUDA_SUCCESS;
}

CUresult cuInit(unsigned int flags) { return flags ? CUDA_ERROR_INVALID_VALUE : (CUresult)setting("STAND_IN_INIT_ERROR", 0); }
CUresult cuDriverGetVersion(int *version) { *version = 13000; return CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int *count) { *count = (int)setting("STAND_IN_DEVICES", 1); return CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) { *device = ordinal; return ordinal ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS; }
CUresult cuDeviceGetName(char *name, int length, CUdevice device) { (void)device; strncpy(name, "Stand-in GPU", length); return CUDA_SUCCESS; }
CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) { (void)device; *major = 8; *minor = 7; return CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult error, const char **text) {
    *text = error == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory" : error == CUDA_ERROR_NO_DEVICE ? "no CUDA-capable device is detected"
        : error == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED ? "operation failed due to a previous error during capture" : "stand-in error";
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    (void)device; retained++; contexts_retained_in_all++;
    *context = (CUcontext)&primary;
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice device) { (void)device; return retained-- > 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT; }
CUresult cuCtxPushCurrent(CUcontext context) {
    if (depth == MAX || context != (CUcontext)&primary) return CUDA_ERROR_INVALID_CONTEXT;
    stack[depth++] = context;
    return CUDA_SUCCESS;
}
CUresult cuCtxPopCurrent(CUcontext *context) {
    if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
    *context = stack[--depth];
    return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext *context) { *context = depth ? stack[depth - 1] : NULL; return CUDA_SUCCESS; }
CUresult cuMemAlloc(CUdeviceptr *address, size_t bytes) { void *p = NULL; int code = keep(&p, bytes, 1); *address = (CUdeviceptr)(uintptr_t)p; return code; }
CUresult cuMemFree(CUdeviceptr address) { return let_go((void *)(uintptr_t)address, 1); }
CUresult cuMemHostAlloc(void **address, size_t bytes, unsigned int flags) { (void)flags; return keep(address, bytes, 0); }
CUresult cuMemFreeHost(void *address) { return let_go(address, 0); }
CUresult cuMemcpyHtoD(CUdeviceptr target, const void *source, size_t bytes) {
    if (!usable() || !holding((void *)(uintptr_t)target, bytes, 1)) return CUDA_ERROR_INVALID_VALUE;
    if (capturing) { capturing->spoiled = 1; return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED; }
    memcpy((void *)(uintptr_t)target, source, bytes);
    return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoH(void *target, CUdeviceptr source, size_t bytes) {
    if (!usable() || !holding((void *)(uintptr_t)source, bytes, 1)) return CUDA_ERROR_INVALID_VALUE;
    if (capturing) { capturing->spoiled = 1; return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED; }
    memcpy(target, (void *)(uintptr_t)source, bytes);
    return CUDA_SUCCESS;
}
CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int count, CUjit_option *options, void **values) {
    (void)count; (void)options; (void)values;
    if (!usable()) return CUDA_ERROR_INVALID_CONTEXT;
    *module = (CUmodule)dlopen(image, RTLD_NOW | RTLD_LOCAL);
    live_modules += *module != NULL;
    return *module ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}
CUresult cuModuleUnload(CUmodule module) { if (!usable()) return CUDA_ERROR_INVALID_CONTEXT; live_modules--; dlclose(module); return CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    *function = (CUfunction)dlsym(module, name);
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
CUresult cuFuncSetBlockShape(CUfunction function, int x, int y, int z) { return function && x > 0 && y > 0 && z > 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }
CUresult cuLaunchKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z, unsigned int block_x,
                        unsigned int block_y, unsigned int block_z, unsigned int shared, CUstream stream, void **params, void **extra) {
    if (params || shared || grid_z != 1 || block_z != 1 || block_x * block_y > 1024 || !extra) return CUDA_ERROR_INVALID_VALUE;
    Work work = {KERNEL, NULL, NULL, 0, (int)(grid_y * block_y), (int)(grid_x * block_x), (Loops)function, {0}};
    const void *args = NULL;
    for (; *extra != CU_LAUNCH_PARAM_END; extra += 2) {
        if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER) args = extra[1];
        else if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE) work.bytes = *(size_t *)extra[1];
    }
    if (!args || work.bytes > ARGS) return CUDA_ERROR_INVALID_VALUE;
    memcpy(work.args, args, work.bytes);
    return enqueue((Stream *)stream, work);
}
CUresult cuMemcpyHtoDAsync(CUdeviceptr target, const void *source, size_t bytes, CUstream stream) {
    if (!holding((void *)(uintptr_t)target, bytes, 1) || !holding(source, bytes, 0)) return CUDA_ERROR_INVALID_VALUE;
    return enqueue((Stream *)stream, (Work){UPLOAD, (char *)(uintptr_t)target, (char *)source, bytes, 0, 0, NULL, {0}});
}
CUresult cuMemcpyDtoHAsync(void *target, CUdeviceptr source, size_t bytes, CUstream stream) {
    if (!holding((void *)(uintptr_t)source, bytes, 1) || !holding(target, bytes, 0)) return CUDA_ERROR_INVALID_VALUE;
    return enqueue((Stream *)stream, (Work){DOWNLOAD, target, (char *)(uintptr_t)source, bytes, 0, 0, NULL, {0}});
}
CUresult cuStreamCreate(CUstream *stream, unsigned int flags) {
    (void)flags;
    if (!usable()) return CUDA_ERROR_INVALID_CONTEXT;
    *stream = (CUstream)calloc(1, sizeof(Stream)); live_streams++;
    return CUDA_SUCCESS;
}
CUresult cuStreamDestroy(CUstream stream) { if (!usable()) return CUDA_ERROR_INVALID_CONTEXT; free(stream); live_streams--; return CUDA_SUCCESS; }
CUresult cuStreamSynchronize(CUstream handle) {
    Stream *stream = (Stream *)handle;
    if (!usable()) return CUDA_ERROR_INVALID_CONTEXT;
    if (stream->capturing) { stream->spoiled = 1; return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED; }
    for (int i = 0; i < stream->waiting.count; i++) {
        int code = do_work(&stream->waiting.work[i]);
        if (code) return code;
    }
    stream->waiting.count = 0;
    return CUDA_SUCCESS;
}
CUresult cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
    Stream *stream = (Stream *)handle;
    if (!usable() || (int)mode > 2) return CUDA_ERROR_INVALID_VALUE;
    if (stream->capturing) return CUDA_ERROR_ILLEGAL_STATE;
    stream->capturing = 1; stream->spoiled = stream->captured.count = 0;
    capturing = stream;
    return CUDA_SUCCESS;
}
CUresult cuStreamEndCapture(CUstream handle, CUgraph *graph) {
    Stream *stream = (Stream *)handle;
    int spoiled = stream->spoiled;
    *graph = NULL;
    if (!stream->capturing) return CUDA_ERROR_ILLEGAL_STATE;
    stream->capturing = stream->spoiled = 0; capturing = NULL;
    if (spoiled) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    List *list = malloc(sizeof(List));
    *list = stream->captured; *graph = (CUgraph)list; live_graphs++;
    return CUDA_SUCCESS;
}
CUresult cuGraphInstantiate(CUgraphExec *executable, CUgraph graph, unsigned long long flags) {
    if (flags || !graph) return CUDA_ERROR_INVALID_VALUE;
    List *list = malloc(sizeof(List));
    *list = *(List *)graph; *executable = (CUgraphExec)list; live_graphs++;
    return CUDA_SUCCESS;
}
CUresult cuGraphLaunch(CUgraphExec executable, CUstream stream) {
    List *list = (List *)executable;
    int code = list && list->count ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    for (int i = 0; !code && i < list->count; i++) code = enqueue((Stream *)stream, list->work[i]);
    return code;
}
CUresult cuGraphDestroy(CUgraph graph) { if (!graph) return CUDA_ERROR_INVALID_VALUE; free(graph); live_graphs--; return CUDA_SUCCESS; }
CUresult cuGraphExecDestroy(CUgraphExec e) { if (!e) return CUDA_ERROR_INVALID_VALUE; free(e); live_graphs--; return CUDA_SUCCESS; }

/* For tests: run the network of the tests; count what is alive. */
int stand_in_network(uintptr_t stream, uintptr_t source, uintptr_t target, int height, int width) {
    return enqueue((Stream *)stream, (Work){NETWORK, (char *)target, (char *)source, 0, height, width, NULL, {0}});
}
int stand_in_holds(uintptr_t address, int bytes) { return holding((void *)address, bytes, 1) != NULL; }
int stand_in_captures(uintptr_t stream) { return ((Stream *)stream)->capturing; }
void stand_in_counts(int *counts) {
    int kept = 0;
    for (Memory *m = memories; m < memories + MAX; m++) kept += m->address != NULL;
    counts[0] = retained; counts[1] = depth; counts[2] = kept; counts[3] = live_streams; counts[4] = live_graphs; counts[5] = contexts_retained_in_all;
    counts[6] = live_modules;
}
