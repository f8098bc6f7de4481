// What all kernels in CUDA C++ have in common: types, tiles in shared memory, fragments on their way to memory. Comes
// first, after the launcher's parameters.

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define NONE 0
#define F16 1
#define BF16 2
#define F32 3

// A row of a swizzled tile is 128 bytes: 64 elements. Tiles whose rows are m (or n) are cut into chunks of that width.
#define WIDTH 64
#define ROW_BYTES 128
#define CHUNK_BYTES (WIDTH * ROW_BYTES)
// k of one instruction.
#define STEP 16
// Threads of four warps, which share a product of 64 rows.
#define WARPGROUP 128

__device__ __forceinline__ u32 shared_address(const void* pointer) {
    return (u32)__cvta_generic_to_shared(pointer);
}

__device__ __forceinline__ float widened(float value, int) {
    return value;
}

__device__ __forceinline__ float widened(u16 value, int kind) {
    float result;
    if (kind == F16)
        asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value));
    else
        result = __uint_as_float((u32)value << 16);
    return result;
}

// Two values as F16 or BF16.
template <int kind> __device__ __forceinline__ u32 packed(float low, float high) {
    u32 result;
    if (kind == BF16)
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    else
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
}

// Lane q of four has pair q of four vectors of eight; afterwards it has all of vector q.
__device__ __forceinline__ void exchange(u32 (&pair)[4], u32 lane) {
    const bool odd = lane & 1, high = lane & 2;
#pragma unroll
    for (int at = 0; at < 4; at += 2) {
        const u32 other = __shfl_xor_sync(0xffffffff, odd ? pair[at] : pair[at + 1], 1);
        pair[at] = odd ? other : pair[at];
        pair[at + 1] = odd ? pair[at + 1] : other;
    }
#pragma unroll
    for (int at = 0; at < 2; ++at) {
        const u32 other = __shfl_xor_sync(0xffffffff, high ? pair[at] : pair[at + 2], 2);
        pair[at] = high ? other : pair[at];
        pair[at + 2] = high ? pair[at + 2] : other;
    }
}
