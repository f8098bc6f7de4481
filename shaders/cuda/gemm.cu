// A matrix product for Hopper (sm_90a): out[m, n] = sum over k of a[m, k] b[n, k] (+ bias[n]), or added to out.
//
// One block a multiprocessor walks over the tiles of the output. Its first warpgroup fetches: TMA copies a slice of
// both operands, 64 of their k, into a ring of STAGES stages, each guarded by two mbarriers (full, empty). The other
// two multiply: wgmma.mma_async reads both from shared memory, swizzled by 128 bytes, and sums in fp32 registers.
//
// The launcher (shaders/src/hopper_gemm/) puts these before the text:
//   TILE_M 128 or 256, TILE_N 64, 128 or 256, STAGES, GROUP_M (rows of tiles that are worked on together)
//   CLUSTER      blocks that work on tiles one below the other, and share what they fetch of b: 1, or 2 if TILE_N > 64
//   A_MN, B_MN   0: k runs along the operand's rows in memory; 1: m (or n) does
//   IN           "f16" or "bf16"
//   OUT, BIAS    NONE (bias only), F16, BF16 or F32
//   ACCUMULATE   1: add to out
//   WIDE         1: rows of out and its start are aligned for vectors (8 elements of 16 bits, 2 of 32)
//
// The instructions are in wgmma.cuh.

#define NONE 0
#define F16 1
#define BF16 2
#define F32 3

struct Info {
    u64 m, n, k;
    // Index of out's first element.
    u64 start;
};

template <int kind> struct Element;
template <> struct Element<NONE> { typedef float type; };
template <> struct Element<F16> { typedef u16 type; };
template <> struct Element<BF16> { typedef u16 type; };
template <> struct Element<F32> { typedef float type; };
typedef Element<BIAS>::type Bias;
typedef Element<OUT>::type Out;

// 64-row parts of a tile: of all, and of one warpgroup.
#define PARTS (TILE_M / 64)
#define OWN (PARTS / 2)
#define A_BYTES (TILE_M * ROW_BYTES)
#define B_BYTES (TILE_N * ROW_BYTES)
#define STAGE_BYTES (A_BYTES + B_BYTES)
#define WARPGROUP 128
#define MULTIPLYING_WARPS 8
// Rows of b that a block of the cluster fetches for all.
#define SHARE (TILE_N / CLUSTER)

// Where a cluster's tiles lie. They are numbered so that those in work at a time share rows and columns in the L2.
struct Place {
    u32 m, n;
};

__device__ __forceinline__ Place place(u32 tile, u32 tiles_m, u32 tiles_n) {
    const u32 group = tile / (GROUP_M * tiles_n), within = tile % (GROUP_M * tiles_n);
    const u32 first = group * GROUP_M;
    const u32 rows = min((u32)GROUP_M, tiles_m - first);
    return {(first + within % rows) * CLUSTER * TILE_M, within / rows * TILE_N};
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

__device__ __forceinline__ float biased(float sum, const Bias* bias, u32 column, u32 columns) {
    if constexpr (BIAS == NONE)
        return sum;
    else
        return column < columns ? sum + widened(bias[column], BIAS) : sum;
}

__device__ __forceinline__ u32 packed(float low, float high) {
    u32 result;
    if (OUT == BF16)
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

__device__ __forceinline__ void put(Out* to, float value) {
    if constexpr (OUT == F32)
        *to = ACCUMULATE ? *to + value : value;
    else
        *to = (u16)packed(ACCUMULATE ? value + widened(*to, OUT) : value, 0.0f);
}

// Writes a warp's 16 rows from `row` on of one warpgroup's part. Lane l has of rows l / 4 and l / 4 + 8 the columns
// 2 (l % 4) and the next of every eight (PTX ISA, "Matrix fragments for wgmma.mma_async.m64nNk16", figure of D).
__device__ __forceinline__ void store(const float (&sum)[TILE_N / 2], Out* out, const Bias* bias, const Info& info,
                                      u32 row, u32 column) {
    const u32 lane = threadIdx.x % 32, quad = lane % 4, m = (u32)info.m, n = (u32)info.n;
    row += lane / 4;
    if constexpr (WIDE && OUT != F32 && !ACCUMULATE) {
#pragma unroll
        for (int at = 0; at < TILE_N / 32; ++at) {
            u32 pairs[2][4];
#pragma unroll
            for (int vector = 0; vector < 4; ++vector) {
                const float* own = &sum[16 * at + 4 * vector];
                const u32 place = column + 32 * at + 8 * vector + 2 * quad;
#pragma unroll
                for (int half = 0; half < 2; ++half)
                    pairs[half][vector] =
                        packed(biased(own[2 * half], bias, place, n), biased(own[2 * half + 1], bias, place + 1, n));
            }
            const u32 place = column + 32 * at + 8 * quad;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                exchange(pairs[half], lane);
                const u32(&vector)[4] = pairs[half];
                if (row + 8 * half < m && place < n)
                    *(uint4*)&out[(u64)(row + 8 * half) * n + place] =
                        make_uint4(vector[0], vector[1], vector[2], vector[3]);
            }
        }
    } else {
#pragma unroll
        for (int at = 0; at < TILE_N / 8; ++at) {
            const u32 place = column + 8 * at + 2 * quad;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                if (row + 8 * half >= m)
                    continue;
                Out* to = &out[(u64)(row + 8 * half) * n + place];
                const float* own = &sum[4 * at + 2 * half];
                float2 value = make_float2(biased(own[0], bias, place, n), biased(own[1], bias, place + 1, n));
                if constexpr (WIDE && OUT == F32) {
                    if (place < n) {
                        if (ACCUMULATE) {
                            const float2 before = *(float2*)to;
                            value.x += before.x;
                            value.y += before.y;
                        }
                        *(float2*)to = value;
                    }
                } else {
                    if (place < n)
                        put(to, value.x);
                    if (place + 1 < n)
                        put(to + 1, value.y);
                }
            }
        }
    }
}

// The tensor maps' and the operands' own pointers are CubeCL's; the copies go through the maps.
extern "C" __global__ void IN_CLUSTER __launch_bounds__(3 * WARPGROUP, 1)
    hopper_gemm(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b, const void*,
                const void*, const void*, const void*, const Bias* bias, Out* out, const __grid_constant__ Info info) {
    extern __shared__ __align__(1024) unsigned char pool[];
    // The swizzle counts rows from addresses that are multiples of its pattern.
    const u32 stages = (shared_address(pool) + ATOM_BYTES - 1) / ATOM_BYTES * ATOM_BYTES;
    const u32 full = stages + STAGES * STAGE_BYTES, empty = full + STAGES * 8;
    if (threadIdx.x == 0) {
        for (u32 stage = 0; stage < STAGES; ++stage) {
            barrier_init(full + 8 * stage, 1);
            barrier_init(empty + 8 * stage, MULTIPLYING_WARPS * CLUSTER);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    }
    meet();

    u32 rank = 0;
    if (CLUSTER > 1)
        asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    const u32 first_tile = blockIdx.x / CLUSTER, clusters = gridDim.x / CLUSTER;
    const u32 tiles_m = ((u32)info.m + CLUSTER * TILE_M - 1) / (CLUSTER * TILE_M);
    const u32 tiles_n = ((u32)info.n + TILE_N - 1) / TILE_N;
    const u32 tiles = tiles_m * tiles_n, slices = ((u32)info.k + WIDTH - 1) / WIDTH;
    // Slices of all tiles in one sequence: stage and parity go on from tile to tile.
    u32 stage = 0, parity = 0;
    if (threadIdx.x < WARPGROUP) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0) {
            asm volatile("prefetch.tensormap [%0];" ::"l"(&map_a) : "memory");
            asm volatile("prefetch.tensormap [%0];" ::"l"(&map_b) : "memory");
            for (u32 tile = first_tile; tile < tiles; tile += clusters) {
                const Place at = place(tile, tiles_m, tiles_n);
                for (u32 slice = 0; slice < slices; ++slice) {
                    const u32 to = stages + stage * STAGE_BYTES, barrier = full + 8 * stage;
                    // The phase before the first counts as complete.
                    barrier_wait(empty + 8 * stage, parity ^ 1);
                    barrier_expect(barrier, STAGE_BYTES);
                    const u32 k = slice * WIDTH, m = at.m + rank * TILE_M, n = at.n + rank * SHARE;
                    fetch_slice<A_MN, TILE_M, false>(to, &map_a, barrier, m, k);
                    const u32 share = to + A_BYTES + rank * SHARE * ROW_BYTES;
                    fetch_slice<B_MN, SHARE, (CLUSTER > 1)>(share, &map_b, barrier, n, k);
                    if (++stage == STAGES) {
                        stage = 0;
                        parity ^= 1;
                    }
                }
            }
        }
        __syncwarp();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        const u32 warpgroup = threadIdx.x / WARPGROUP - 1, warp = threadIdx.x % WARPGROUP / 32;
        const u32 lane = threadIdx.x % 32;
        float sum[OWN][TILE_N / 2];
        for (u32 tile = first_tile; tile < tiles; tile += clusters) {
            const Place at = place(tile, tiles_m, tiles_n);
            u32 before = 0;
            for (u32 slice = 0; slice < slices; ++slice) {
                const u32 a = stages + stage * STAGE_BYTES, b = a + A_BYTES;
                barrier_wait(full + 8 * stage, parity);
                asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
                for (int step = 0; step < WIDTH / STEP; ++step) {
#pragma unroll
                    for (int part = 0; part < OWN; ++part) {
                        // 64 rows of a, or one chunk of them: as many bytes.
                        const u64 left = descriptor(a + (warpgroup * OWN + part) * CHUNK_BYTES) + step_of<A_MN>(step);
                        multiply(sum[part], left, descriptor(b) + step_of<B_MN>(step), slice > 0 || step > 0);
                    }
                }
                asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
                // One group goes on: the stage before this one is read.
                asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
                if (slice > 0)
                    barrier_arrive(empty + 8 * before, lane);
                before = stage;
                if (++stage == STAGES) {
                    stage = 0;
                    parity ^= 1;
                }
            }
#pragma unroll
            for (int part = 0; part < OWN; ++part)
                finish(sum[part]);
            barrier_arrive(empty + 8 * before, lane);
#pragma unroll
            for (int part = 0; part < OWN; ++part) {
                const u32 row = at.m + rank * TILE_M + (warpgroup * OWN + part) * 64 + warp * 16;
                store(sum[part], out + info.start, bias, info, row, at.n);
            }
        }
    }
    // Nobody goes while another block still writes to its memory or barriers.
    if (CLUSTER > 1)
        meet();
}
