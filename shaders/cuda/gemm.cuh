// What the matrix products have in common: the order in which tiles of the output are worked on, and the way of the
// sums to memory. Comes after base.cuh.

struct Info {
    u64 m, n, k;
    // Index of out's first element.
    u64 start;
    // Where columns turn: positions, of which row r has r % seq, and how many columns do.
    u64 seq, turned;
};

// Columns that turn by their row's position (shaders/src/rotary.rs), TURNED > 0: elements i and i + 8 TURNED of each HEAD
// columns, by cosines and sines, 8 TURNED a position.
struct Turns {
#if TURNED
    const float *cosines, *sines;
#endif
};
#if TURNED
#define TABLES const float *cosines, const float *sines,
#define TURNS Turns{cosines, sines}
#else
#define TABLES
#define TURNS Turns{}
#endif

template <int kind> struct Element;
template <> struct Element<NONE> { typedef float type; };
template <> struct Element<F16> { typedef u16 type; };
template <> struct Element<BF16> { typedef u16 type; };
template <> struct Element<F32> { typedef float type; };
typedef Element<BIAS>::type Bias;
typedef Element<OUT>::type Out;

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

__device__ __forceinline__ float biased(float sum, const Bias* bias, u32 column, u32 columns) {
    if constexpr (BIAS == NONE)
        return sum;
    else
        return column < columns ? sum + widened(bias[column], BIAS) : sum;
}

// The bias of two neighbouring columns of a whole vector.
__device__ __forceinline__ float2 bias_of(const Bias* bias, u32 column, u32 columns) {
    if constexpr (BIAS == F32) {
        return column < columns ? make_float2(bias[column], bias[column + 1]) : make_float2(0.0f, 0.0f);
    } else {
        const u32 both = column < columns ? *(const u32*)(bias + column) : 0;
        return make_float2(widened((u16)both, BIAS), widened((u16)(both >> 16), BIAS));
    }
}

__device__ __forceinline__ void put(Out* to, float value) {
    if constexpr (OUT == F32)
        *to = ACCUMULATE ? *to + value : value;
    else
        *to = (u16)packed<OUT>(ACCUMULATE ? value + widened(*to, OUT) : value, 0.0f);
}

#if TURNED
// Turns a lane's share of 32 columns of a row, elements 2 `half` and the next of four vectors of four.
__device__ __forceinline__ void turn(float (&own)[16], int half, const Turns& turns, u32 position) {
    const u32 from = position * 8 * TURNED + 2 * (threadIdx.x % 4);
#pragma unroll
    for (int vector = 0; vector < TURNED; ++vector) {
        const float2 cosine = *(const float2*)(turns.cosines + from + 8 * vector);
        const float2 sine = *(const float2*)(turns.sines + from + 8 * vector);
        float *first = &own[4 * vector + 2 * half], *second = &own[4 * (vector + TURNED) + 2 * half];
        const float a = first[0], b = first[1];
        first[0] = a * cosine.x - second[0] * sine.x;
        first[1] = b * cosine.y - second[1] * sine.y;
        second[0] = second[0] * cosine.x + a * sine.x;
        second[1] = second[1] * cosine.y + b * sine.y;
    }
}
#endif

// Writes a warp's 16 rows from `row` on, `columns` columns of each. Lane l has of rows l / 4 and l / 4 + 8 the columns
// 2 (l % 4) and the next of every eight (PTX ISA, figures of D of wgmma.mma_async and of C of mma.m16n8k16).
template <int columns>
__device__ __forceinline__ void store(const float (&sum)[columns / 2], Out* out, const Bias* bias, const Turns& turns,
                                      const Info& info, u32 row, u32 column) {
    const u32 lane = threadIdx.x % 32, quad = lane % 4, m = (u32)info.m, n = (u32)info.n;
    row += lane / 4;
    if constexpr (WIDE && OUT != F32 && !ACCUMULATE) {
#if TURNED
        const u32 position[2] = {row % (u32)info.seq, (row + 8) % (u32)info.seq};
#endif
#pragma unroll
        for (int at = 0; at < columns / 32; ++at) {
            float own[16];
#pragma unroll
            for (int vector = 0; vector < 4; ++vector) {
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    own[4 * vector + e] = sum[16 * at + 4 * vector + e];
                if constexpr (BIAS != NONE) {
                    // Columns come in whole vectors.
                    const float2 add = bias_of(bias, column + 32 * at + 8 * vector + 2 * quad, n);
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        own[4 * vector + 2 * half] += add.x;
                        own[4 * vector + 2 * half + 1] += add.y;
                    }
                }
            }
#if TURNED
            if (column + 32 * at < (u32)info.turned && (column + 32 * at) % HEAD == 0) {
                turn(own, 0, turns, position[0]);
                turn(own, 1, turns, position[1]);
            }
#endif
            const u32 place = column + 32 * at + 8 * quad;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                u32 vector[4];
#pragma unroll
                for (int of = 0; of < 4; ++of)
                    vector[of] = packed<OUT>(own[4 * of + 2 * half], own[4 * of + 2 * half + 1]);
                exchange(vector, lane);
                if (row + 8 * half < m && place < n)
                    *(uint4*)&out[(u64)(row + 8 * half) * n + place] =
                        make_uint4(vector[0], vector[1], vector[2], vector[3]);
            }
        }
    } else {
#pragma unroll
        for (int at = 0; at < columns / 8; ++at) {
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
