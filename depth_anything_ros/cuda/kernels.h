// Every kernel: KERNEL(name, arguments, per-pixel function). Included by kernels.cu and, in the tests, by a loop on the CPU.
#include "pixels.h"

template <class Args, void (*pixel)(const Args&, int, int)>
HD void run_thread(const Args& args, int y, int x) {
    if (y < args.extent.height && x < args.extent.width) pixel(args, y, x);
}

#define PREPROCESS(source, Source)                                                                         \
    KERNEL(preprocess_##source##_linear_float32, PreprocessArgs, preprocess_pixel<Source, Linear, float>)     \
    KERNEL(preprocess_##source##_linear_float16, PreprocessArgs, preprocess_pixel<Source, Linear, half_bits>) \
    KERNEL(preprocess_##source##_cubic_float32, PreprocessArgs, preprocess_pixel<Source, Cubic, float>)       \
    KERNEL(preprocess_##source##_cubic_float16, PreprocessArgs, preprocess_pixel<Source, Cubic, half_bits>)   \
    KERNEL(cloud_##source, CloudArgs, point_xyzrgb<Source>)

#define NETWORK_MAP(kind, Kind)                                                            \
    KERNEL(network_map_##kind##_float32, NetworkMapArgs, network_map_pixel<Kind, float>) \
    KERNEL(network_map_##kind##_float16, NetworkMapArgs, network_map_pixel<Kind, half_bits>)

PREPROCESS(packed, Packed)
PREPROCESS(yuv422, Yuv422)
PREPROCESS(yuv420, Yuv420)
PREPROCESS(bayer, Bayer)
NETWORK_MAP(metric_depth, MetricDepth)
NETWORK_MAP(disparity, Disparity)
NETWORK_MAP(depth_of_disparity, DepthOfDisparity)
KERNEL(enlarge_depth, EnlargeArgs, enlarge_depth_pixel)
KERNEL(enlarge_disparity, EnlargeArgs, enlarge_disparity_pixel)
KERNEL(cloud_xyz, CloudArgs, point_xyz)
KERNEL(picture, PictureArgs, picture_pixel)
