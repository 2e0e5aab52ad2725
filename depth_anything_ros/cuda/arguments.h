// What the kernels are given: one struct per kernel, passed by value. `launch.py` holds the same structs as numpy dtypes.
//
// Every struct begins with the extent of the kernel's output: one thread makes one pixel (or point) of it.
#pragma once

#ifdef __CUDACC__
#define HD __host__ __device__ __forceinline__
#else
#define HD inline
#endif

typedef unsigned char u8;
typedef unsigned short half_bits;  // IEEE 754 binary16; the bits alone, so that no CUDA header is needed

struct Extent {
    int height, width;
};

// A raw camera image in device memory. `offset`: of R, G, B in a pixel (packed); of Y, U, V in two pixels (yuv422);
// of U, V in a pair of chroma (yuv420, elements 1 and 2); row and column of the red pixel in a 2x2 cell (bayer).
struct Image {
    const u8* bytes;
    int height, width, step, bytes_per_pixel;
    int offset[3];
    int unused;
};

// Which source pixels make one row or column of a resized image, and how much each counts.
template <int COUNT>
struct PixelTaps {
    int index[COUNT];
    int weight[COUNT];  // of 2048
};

struct DepthTaps {
    int index[2];
    float weight[2];
};

// What may change from frame to frame while a captured graph stays valid.
struct Numbers {
    float raw_scale;                    // of the network's output: 1, or what makes canonical depth metric
    float model_max_m;                  // farther, before the scale, is +Inf
    float scale_factor, scale_offset;   // scale.py
    float max_depth_m;                  // farther is +Inf
    float clamp_m;                      // a point that is farther is here
    float nearest_m, farthest_m;        // range of the cloud along Z
    float up[3], lowest_m, highest_m;   // against gravity, in the camera's frame; heights of points above the camera
    float color_low, color_gain;        // of -log(depth) -> 0 .. 255
};

struct PreprocessArgs {
    Extent extent;  // of the network's input
    Image image;
    const void* column_taps;  // PixelTaps<2 or 4> of content_width
    const void* row_taps;     // PixelTaps<2 or 4> of content_height
    void* tensor;             // (3, height, width) float or half_bits
    int content_top, content_left, content_height, content_width;
    int channel[3];  // of the image (0 = R), for each plane of the tensor
    float gain[3], bias[3];
    int unused;
};

struct NetworkMapArgs {
    Extent extent;  // of the image content inside the network's output
    const void* raw;  // float or half_bits
    float* map;
    const Numbers* numbers;
    int raw_width, content_top, content_left, unused;
};

struct EnlargeArgs {
    Extent extent;  // of the published map
    const float* map;
    float* published;
    const Numbers* numbers;
    const DepthTaps* column_taps;
    const DepthTaps* row_taps;
    int map_width, unused;
};

struct CloudArgs {
    Extent extent;  // of the cloud
    const float* depth;
    float* points;  // (height, width, 3 or 4)
    const Numbers* numbers;
    const float* ray_x;  // metres along X at a depth of 1 m, NaN where there is no ray: element row * ray_x_step[0] + column * ray_x_step[1]
    const float* ray_y;
    const int* color_column;  // (width,) column of the image that gives a point its colour
    const int* color_row;     // (height,)
    Image image;
    int ray_x_step[2], ray_y_step[2];
    int depth_width, stride;
};

struct PictureArgs {
    Extent extent;  // of the map
    const float* map;
    u8* rgb;            // (height, width, 3)
    const u8* palette;  // (256, 3) R, G, B
    const Numbers* numbers;
};

static_assert(sizeof(Extent) == 8 && sizeof(Image) == 40 && sizeof(Numbers) == 60, "launch.py holds the same layout");
static_assert(sizeof(PixelTaps<2>) == 16 && sizeof(PixelTaps<4>) == 32 && sizeof(DepthTaps) == 16, "taps.py holds the same layout");
static_assert(sizeof(PreprocessArgs) == 128 && sizeof(NetworkMapArgs) == 48 && sizeof(EnlargeArgs) == 56, "launch.py holds the same layout");
static_assert(sizeof(CloudArgs) == 128 && sizeof(PictureArgs) == 40, "launch.py holds the same layout");
