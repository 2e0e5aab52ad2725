// Raw image bytes -> one RGB pixel, for every layout; the twins of decode.py. Integer for integer what OpenCV computes.
#pragma once
#include "arguments.h"

struct Rgb {
    int channel[3];
};

HD int clamp_int(int value, int low, int high) { return value < low ? low : value > high ? high : value; }

struct Packed {  // rgb8, bgr8, rgba8, bgra8, mono8, mono16 (its high byte)
    static HD Rgb at(const Image& image, int y, int x) {
        const u8* pixel = image.bytes + (long long)y * image.step + x * image.bytes_per_pixel;
        return {{pixel[image.offset[0]], pixel[image.offset[1]], pixel[image.offset[2]]}};
    }
};

// ITU-R BT.601, studio range, in units of 2^-20.
HD Rgb rgb_from_yuv(int y, int u, int v) {
    const int half = 1 << 19, luma = (y < 16 ? 0 : y - 16) * 1220542;
    u -= 128;
    v -= 128;
    return {{clamp_int((luma + half + 1673527 * v) >> 20, 0, 255), clamp_int((luma + half - 852492 * v - 409993 * u) >> 20, 0, 255),
             clamp_int((luma + half + 2116026 * u) >> 20, 0, 255)}};
}

struct Yuv422 {  // yuv422, uyvy, yuv422_yuy2, yuyv: four bytes for two pixels
    static HD Rgb at(const Image& image, int y, int x) {
        const u8* pair = image.bytes + (long long)y * image.step + (x >> 1) * 4;
        return rgb_from_yuv(pair[image.offset[0] + (x & 1) * 2], pair[image.offset[1]], pair[image.offset[2]]);
    }
};

struct Yuv420 {  // nv12, nv21: a plane of luma, then one of interleaved chroma with a quarter of the pixels
    static HD Rgb at(const Image& image, int y, int x) {
        const u8* luma = image.bytes + (long long)y * image.step + x;
        const u8* chroma = image.bytes + (long long)(image.height + (y >> 1)) * image.step + (x & ~1);
        return rgb_from_yuv(*luma, chroma[image.offset[1]], chroma[image.offset[2]]);
    }
};

struct Bayer {  // bilinear; the outermost pixels are those beside them, and an image without inner pixels is black
    static HD Rgb at(const Image& image, int y, int x) {
        if (image.height < 3 || image.width < 3) return {{0, 0, 0}};
        y = clamp_int(y, 1, image.height - 2);
        x = clamp_int(x, 1, image.width - 2);
        const u8* here = image.bytes + (long long)y * image.step + x;
        const u8 *above = here - image.step, *below = here + image.step;
        const int level = (here[-1] + here[1] + 1) >> 1, upright = (above[0] + below[0] + 1) >> 1;
        const bool red_row = (y & 1) == image.offset[0], red_column = (x & 1) == image.offset[1];
        if (red_row != red_column) return {{red_row ? level : upright, here[0], red_row ? upright : level}};
        const int cross = (here[-1] + here[1] + above[0] + below[0] + 2) >> 2;
        const int diagonal = (above[-1] + above[1] + below[-1] + below[1] + 2) >> 2;
        return {{red_row ? here[0] : diagonal, cross, red_row ? diagonal : here[0]}};
    }
};
