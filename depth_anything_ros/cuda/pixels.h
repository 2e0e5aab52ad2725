// The arithmetic of the stages, one output pixel at a time; each function names its numpy twin. The same text is compiled for
// the GPU and, in the tests, for the CPU. Compile without fused multiply-add, or the last bit differs from the twins.
#pragma once
#include "arguments.h"
#include "image.h"
#include "floats.h"

// --- preprocess.Preprocessor: cv2.resize of uint8 (11 bits of weight in each direction), then gain and bias -----------------

struct Linear {
    static const int TAPS = 2;
    static HD int rounded(const int* sums, const int* weights) {  // the low bits are dropped in this order by OpenCV, too
        return ((weights[0] * (sums[0] >> 4) >> 16) + (weights[1] * (sums[1] >> 4) >> 16) + 2) >> 2;
    }
};

struct Cubic {
    static const int TAPS = 4;
    static HD int rounded(const int* sums, const int* weights) {
        const int sum = sums[0] * weights[0] + sums[1] * weights[1] + sums[2] * weights[2] + sums[3] * weights[3];
        return clamp_int((sum + (1 << 21)) >> 22, 0, 255);
    }
};

template <class Source, class Filter>
HD Rgb resized_pixel(const Image& image, const PixelTaps<Filter::TAPS>& rows, const PixelTaps<Filter::TAPS>& columns) {
    int sums[3][Filter::TAPS] = {};
    for (int i = 0; i < Filter::TAPS; ++i)
        for (int j = 0; j < Filter::TAPS; ++j) {
            const Rgb pixel = Source::at(image, rows.index[i], columns.index[j]);
            for (int c = 0; c < 3; ++c) sums[c][i] += pixel.channel[c] * columns.weight[j];
        }
    return {{Filter::rounded(sums[0], rows.weight), Filter::rounded(sums[1], rows.weight), Filter::rounded(sums[2], rows.weight)}};
}

template <class Source, class Filter, class Value>
HD void preprocess_pixel(const PreprocessArgs& args, int y, int x) {
    const long long plane = (long long)args.extent.height * args.extent.width, at = (long long)y * args.extent.width + x;
    Value* tensor = (Value*)args.tensor + at;
    const int row = y - args.content_top, column = x - args.content_left;
    if (row < 0 || row >= args.content_height || column < 0 || column >= args.content_width) {
        for (int c = 0; c < 3; ++c) store(tensor + c * plane, 0.0f);
        return;
    }
    typedef PixelTaps<Filter::TAPS> Taps;
    const Rgb pixel = resized_pixel<Source, Filter>(args.image, ((const Taps*)args.row_taps)[row], ((const Taps*)args.column_taps)[column]);
    for (int c = 0; c < 3; ++c) {
        const int value = args.channel[c] == 0 ? pixel.channel[0] : args.channel[c] == 1 ? pixel.channel[1] : pixel.channel[2];
        store(tensor + c * plane, value * args.gain[c] + args.bias[c]);
    }
}

// --- postprocess.map_from_raw, scale.metric_map --------------------------------------------------------------------------------

struct MetricDepth {
    static HD float of(float raw, const Numbers& numbers) {
        const float depth = raw * numbers.raw_scale;
        if (!(depth > 0)) return not_a_number();
        if (depth > numbers.model_max_m) return infinity();
        const float scaled = depth * numbers.scale_factor + numbers.scale_offset;
        return scaled <= 0 ? not_a_number() : scaled;
    }
};

struct Disparity {
    static HD float of(float raw, const Numbers&) { return is_finite(raw) ? raw : not_a_number(); }
};

struct DepthOfDisparity {
    static HD float of(float raw, const Numbers& numbers) {
        const float inverse = Disparity::of(raw, numbers) * numbers.scale_factor + numbers.scale_offset;
        return inverse <= 0 ? infinity() : 1.0f / inverse;
    }
};

template <class Kind, class Value>
HD void network_map_pixel(const NetworkMapArgs& args, int y, int x) {
    const long long from = (long long)(y + args.content_top) * args.raw_width + args.content_left + x;
    args.map[(long long)y * args.extent.width + x] = Kind::of(load((const Value*)args.raw + from), *args.numbers);
}

// --- postprocess.enlarge -------------------------------------------------------------------------------------------------------

HD float mixed(const float (&values)[2][2], const DepthTaps& rows, const DepthTaps& columns) {
    const float upper = values[0][0] * columns.weight[0] + values[0][1] * columns.weight[1];
    const float lower = values[1][0] * columns.weight[0] + values[1][1] * columns.weight[1];
    return upper * rows.weight[0] + lower * rows.weight[1];
}

HD void enlarge_disparity_pixel(const EnlargeArgs& args, int y, int x) {
    const DepthTaps rows = args.row_taps[y], columns = args.column_taps[x];
    float values[2][2];
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) values[i][j] = args.map[(long long)rows.index[i] * args.map_width + columns.index[j]];
    args.published[(long long)y * args.extent.width + x] = mixed(values, rows, columns);
}

HD void enlarge_depth_pixel(const EnlargeArgs& args, int y, int x) {
    const DepthTaps rows = args.row_taps[y], columns = args.column_taps[x];
    const float max_depth_m = args.numbers->max_depth_m;
    float values[2][2], near[2][2];
    bool any_far = false;
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) {
            const float value = args.map[(long long)rows.index[i] * args.map_width + columns.index[j]];
            const bool far = value > max_depth_m;
            any_far |= far;
            values[i][j] = far ? 0.0f : value;
            near[i][j] = far ? 0.0f : 1.0f;
        }
    float depth = mixed(values, rows, columns);
    if (any_far) {  // near pixels are averaged among themselves
        const float weight = mixed(near, rows, columns);
        depth = weight < 0.5f ? infinity() : depth / weight;
    }
    args.published[(long long)y * args.extent.width + x] = depth;
}

// --- obstacles.points_from_depth: edges.with_far_policy, geometry.CloudBuilder -----------------------------------------------------

struct Point {
    float x, y, z;
};

HD Point point_of(const CloudArgs& args, int row, int column) {
    const Numbers& numbers = *args.numbers;
    float z = args.depth[(long long)row * args.stride * args.depth_width + (long long)column * args.stride];
    if (z > numbers.clamp_m) z = numbers.clamp_m;
    const float ray_x = args.ray_x[(long long)row * args.ray_x_step[0] + column * args.ray_x_step[1]];
    const float ray_y = args.ray_y[(long long)row * args.ray_y_step[0] + column * args.ray_y_step[1]];
    const float above_camera_m = z * (numbers.up[0] * ray_x + numbers.up[1] * ray_y + numbers.up[2]);
    const bool in_range = z >= numbers.nearest_m && z <= numbers.farthest_m;
    if (!in_range || !(above_camera_m >= numbers.lowest_m && above_camera_m <= numbers.highest_m)) z = not_a_number();
    return {z * ray_x, z * ray_y, z};
}

HD void point_xyz(const CloudArgs& args, int row, int column) {
    const Point point = point_of(args, row, column);
    float* to = args.points + ((long long)row * args.extent.width + column) * 3;
    to[0] = point.x;
    to[1] = point.y;
    to[2] = point.z;
}

struct alignas(16) ColoredPoint {
    float x, y, z, rgb;  // rgb: 0x00RRGGBB in the bits; with another top byte a bright red would be a NaN
};

template <class Source>
HD void point_xyzrgb(const CloudArgs& args, int row, int column) {
    const Point point = point_of(args, row, column);
    const Rgb color = Source::at(args.image, args.color_row[row], args.color_column[column]);
    const unsigned packed = (unsigned)color.channel[0] << 16 | (unsigned)color.channel[1] << 8 | (unsigned)color.channel[2];
    ColoredPoint* points = (ColoredPoint*)args.points;
    points[(long long)row * args.extent.width + column] = {point.x, point.y, point.z, float_from_bits(packed)};
}

// --- color.rgb_from_map --------------------------------------------------------------------------------------------------------

HD void picture_pixel(const PictureArgs& args, int y, int x) {
    const long long at = (long long)y * args.extent.width + x;
    const float value = args.map[at];
    const float scaled = (-logf(value) - args.numbers->color_low) * args.numbers->color_gain;
    const int index = is_nan(value) || !(scaled > 0) ? 0 : scaled >= 255.0f ? 255 : (int)scaled;
    for (int c = 0; c < 3; ++c) args.rgb[at * 3 + c] = is_nan(value) ? 0 : args.palette[index * 3 + c];
}
