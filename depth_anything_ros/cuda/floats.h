// What the host compiler and the device compiler spell differently, and half precision.
#pragma once
#include "arguments.h"
#ifndef __CUDACC__
#include <math.h>
#endif

HD float float_from_bits(unsigned bits) {
    union {
        unsigned bits;
        float value;
    } both = {bits};
    return both.value;
}

HD unsigned bits_from_float(float value) {
    union {
        float value;
        unsigned bits;
    } both = {value};
    return both.bits;
}

HD float not_a_number() { return float_from_bits(0x7fc00000u); }

HD float infinity() { return float_from_bits(0x7f800000u); }

HD bool is_nan(float value) { return value != value; }

HD bool is_finite(float value) { return (bits_from_float(value) & 0x7f800000u) != 0x7f800000u; }

// Round to nearest, ties to even, as numpy's astype(float16) and the GPU's own instruction do it.
HD half_bits half_from_float(float value) {
#ifdef __CUDA_ARCH__
    half_bits result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result) : "f"(value));
    return result;
#else
    const unsigned bits = bits_from_float(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (half_bits)(sign | 0x7fffu);
    if (magnitude >= 0x477ff000u) return (half_bits)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {  // subnormal: let float arithmetic round at the right bit
        const float rounded = float_from_bits(magnitude) + 0.5f;
        return (half_bits)(sign | (bits_from_float(rounded) - 0x3f000000u));
    }
    return (half_bits)(sign | ((magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13));
#endif
}

HD float float_from_half(half_bits half) {
    const unsigned sign = (half & 0x8000u) << 16, magnitude = half & 0x7fffu;
    if (magnitude >= 0x7c00u) return float_from_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    const float scaled = float_from_bits(magnitude << 13) * 5.192296858534828e33f;  // 2^112: the difference of the exponents' biases
    return float_from_bits(sign | bits_from_float(scaled));
}

HD void store(float* at, float value) { *at = value; }
HD void store(half_bits* at, float value) { *at = half_from_float(value); }
HD float load(const float* at) { return *at; }
HD float load(const half_bits* at) { return float_from_half(*at); }
