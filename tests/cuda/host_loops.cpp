// The kernels as loops on the CPU: every thread of a launch, one after another. Built by tests/cuda/conftest.py.
#define KERNEL(name, Args, ...)                                                      \
    extern "C" void name(const Args* args, const int* threads_yx) {                  \
        for (int y = 0; y < threads_yx[0]; ++y)                                      \
            for (int x = 0; x < threads_yx[1]; ++x) run_thread<Args, __VA_ARGS__>(*args, y, x); \
    }
#include "kernels.h"

#define SIZE_OF(Type) extern "C" int size_of_##Type() { return sizeof(Type); }
SIZE_OF(Image)
SIZE_OF(Numbers)
SIZE_OF(DepthTaps)
SIZE_OF(PreprocessArgs)
SIZE_OF(NetworkMapArgs)
SIZE_OF(EnlargeArgs)
SIZE_OF(CloudArgs)
SIZE_OF(PictureArgs)

extern "C" void halves_from_floats(const float* values, half_bits* halves, long count) {
    for (long i = 0; i < count; ++i) halves[i] = half_from_float(values[i]);
}

extern "C" void floats_from_halves(const half_bits* halves, float* values, long count) {
    for (long i = 0; i < count; ++i) values[i] = float_from_half(halves[i]);
}
