// The kernels: one thread for one output pixel, neighbouring threads for neighbouring pixels of a row.
#define KERNEL(name, Args, ...)                                                                                               \
    extern "C" __global__ void name(const Args args) {                                                      \
        run_thread<Args, __VA_ARGS__>(args, blockIdx.y * blockDim.y + threadIdx.y, blockIdx.x * blockDim.x + threadIdx.x); \
    }
#include "kernels.h"
