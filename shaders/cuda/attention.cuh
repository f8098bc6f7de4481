// Attention in CUDA C++, heads of 64 elements, sequences of whole blocks of 64: what its kernels have in common.
//
// Four warps, a warpgroup, own 64 rows: queries in forward and for dq, keys for dk and dv. Their elements are in registers,
// as the left side of products; the other side comes in blocks of 64 rows into a ring of stages in shared memory. As in
// FlashAttention-3 (Shah et al., 2024) the scores of a block are multiplied together with what became of the block before:
// its exponentials, in registers as well, times values that are still there.
//
// How blocks arrive and what multiplies is in hopper_attention.cuh (TMA and wgmma) and ampere_attention.cuh (cp.async and
// mma.sync), one of which follows. Both hold scores as the PTX ISA shows for D of wgmma and C of mma.m16n8k16: lane l of a
// warp has of rows l / 4 and l / 4 + 8 the columns 2 (l % 4) and the next of every eight.
//
// The launcher (shaders/src/attention/cuda/) puts these before the text:
//   WARPGROUPS, STAGES   warpgroups of a block of the grid; blocks of rows in shared memory
//   IN, IN_KIND          "f16" and F16, or "bf16" and BF16
//   DROPOUT              1: with dropout
//   PROJECTED, TURNED    1: gradients are taken on to what was projected (below), of which 16 TURNED elements a head turned

struct Info {
    u64 tiles, seq, heads;
    // Elements of a row of the fused projection.
    u64 width;
    // What scores are multiplied with; an fp32's bits, as `kept`.
    u64 scale;
    // What kept probabilities are multiplied with: 1 without dropout.
    u64 kept;
    // See shaders/src/philox.rs. Both keys of each round, the first in the lower half: as constants they cost nothing.
    u64 first_sequence, place, threshold, keys[10];
};

#define DIMS WIDTH
#define BLOCK WIDTH

#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f
// Far below any score, yet finite.
#define MASKED -1.0e30f

__device__ __forceinline__ float bits(u64 value) {
    return __uint_as_float((u32)value);
}

__device__ __forceinline__ float power2(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

__device__ __forceinline__ float logarithm2(float x) {
    float result;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

// The same for all lanes of a warp, and the compiler knows.
__device__ __forceinline__ u32 uniform(u32 value) {
    return __shfl_sync(0xffffffff, value, 0);
}

// Of gradients that are taken on to what was projected: cosines and sines, 8 TURNED a position, and where sums over 16
// tokens each go, [tokens / 16, 3 heads DIMS].
#if PROJECTED
#define PROJECTION const float *cosines, const float *sines, float *sums,
#else
#define PROJECTION
#endif

// A block of the grid: a tile of a head. Of head 0 of sequence 0 first.
struct Place {
    u32 tile, sequence, head;

    __device__ __forceinline__ explicit Place(const Info& info) {
        const u32 tiles = (u32)info.tiles, heads = (u32)info.heads, row = blockIdx.x / tiles;
        tile = blockIdx.x % tiles;
        sequence = row / heads;
        head = row % heads;
    }

    // Of its first element of log-sum-exps.
    __device__ __forceinline__ u64 row(const Info& info) const {
        return ((u64)sequence * info.heads + head) * info.seq;
    }
};

// The queries of a block of the grid. The last ones have the most keys: they begin first, so that short ones fill the end.
struct Tile {
    // Its first query, and how many blocks of keys its queries see.
    u32 first, blocks;

    __device__ __forceinline__ Tile(const Place& here, const Info& info) {
        first = ((u32)info.tiles - 1 - here.tile) * WARPGROUPS * BLOCK;
        blocks = min(first + WARPGROUPS * BLOCK, (u32)info.seq) / BLOCK;
    }
};

// A lane's first query (its second is the eighth after it), and how many blocks of keys its warpgroup's see: none where they
// lie past the end.
struct Own {
    u32 query, blocks;

    __device__ __forceinline__ Own(const Tile& tile, const Info& info, u32 thread) {
        const u32 first = tile.first + uniform(thread / WARPGROUP) * BLOCK;
        query = first + thread % WARPGROUP / 32 * 16 + thread % 32 / 4;
        blocks = first < (u32)info.seq ? first / BLOCK + 1 : 0;
    }
};

// The key of a block whose score is element e of product p.
__device__ __forceinline__ u32 key_of(u32 member, int p, int e) {
    return DROPOUT ? 16 * member + 2 * p + e : 8 * p + 2 * member + e;
}

// A warp's 16 rows of 64 elements, as the left side of four products (PTX ISA, the figure of A of m64k16): lane l has
// rows l / 4 (`low`) and l / 4 + 8 (`high`).
struct Rows {
    u32 step[4][4];

    __device__ __forceinline__ void load(const u16* low, const u16* high) {
        const u32 member = threadIdx.x % 4;
#pragma unroll
        for (int at = 0; at < 4; ++at) {
            step[at][0] = *(const u32*)(low + STEP * at + 2 * member);
            step[at][1] = *(const u32*)(high + STEP * at + 2 * member);
            step[at][2] = *(const u32*)(low + STEP * at + 8 + 2 * member);
            step[at][3] = *(const u32*)(high + STEP * at + 8 + 2 * member);
        }
    }
};

// Of the rows l / 4 (`half` 0) or l / 4 + 8: the sum of their elements' products, the same in all lanes that have them.
__device__ __forceinline__ float dot(const Rows& a, const Rows& b, int half) {
    float sum = 0;
#pragma unroll
    for (int at = 0; at < 8; ++at) {
        const u32 left = a.step[at / 2][at % 2 * 2 + half], right = b.step[at / 2][at % 2 * 2 + half];
        sum += widened((u16)left, IN_KIND) * widened((u16)right, IN_KIND);
        sum += widened((u16)(left >> 16), IN_KIND) * widened((u16)(right >> 16), IN_KIND);
    }
    sum += __shfl_xor_sync(0xffffffff, sum, 1);
    return sum + __shfl_xor_sync(0xffffffff, sum, 2);
}

// The lower and the upper half. In C++ ptxas adds zeros to the upper halves of some.
__device__ __forceinline__ uint2 product(u32 a, u32 b) {
    uint2 result;
    asm("{\n.reg .b64 wide;\nmul.wide.u32 wide, %2, %3;\nmov.b64 {%0, %1}, wide;\n}"
        : "=r"(result.x), "=r"(result.y)
        : "r"(a), "r"(b));
    return result;
}

// Which elements of a row are kept: in byte b of word w, bit 7 that of 4w + b.
struct Kept {
    u32 word[4];
};

__device__ __forceinline__ Kept draw(const Info& info, const Place& here, u32 position, u32 block) {
    u32 c0 = block, c1 = position, c2 = (u32)info.first_sequence + here.sequence, c3 = (u32)info.place | here.head << 4;
    // Philox4x32-10 (Salmon et al., SC 2011, section 4.3).
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const uint2 first = product(0xD2511F53, c0), second = product(0xCD9E8D57, c2);
        c0 = second.y ^ c1 ^ (u32)info.keys[round];
        c1 = second.x;
        c2 = first.y ^ c3 ^ (u32)(info.keys[round] >> 32);
        c3 = first.x;
    }
    // A byte is kept that is not below the threshold t. Bit 7 of (byte | 128) - t % 128 says whether its lower seven bits
    // are not below those of t; then bit 7 of the byte decides, with those for t < 128 or, against those, for t >= 128.
    const u32 low = ((u32)info.threshold & 127) * 0x01010101, either = (u32)info.threshold < 128 ? ~0u : 0;
    Kept kept = {c0, c1, c2, c3};
#pragma unroll
    for (int at = 0; at < 4; ++at) {
        const u32 word = kept.word[at], not_below = (word | 0x80808080) - low;
        kept.word[at] = (word & not_below) | ((word | not_below) & either);
    }
    // They are drawn here, while products are on their way, and not where they are needed.
    asm volatile("" : "+r"(kept.word[0]), "+r"(kept.word[1]), "+r"(kept.word[2]), "+r"(kept.word[3]));
    return kept;
}

template <int further> __device__ __forceinline__ float4 shared_vector(u32 address) {
    float4 vector;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4 + %5];"
                 : "=f"(vector.x), "=f"(vector.y), "=f"(vector.z), "=f"(vector.w)
                 : "r"(address), "n"(further)
                 : "memory");
    return vector;
}

template <int further> __device__ __forceinline__ uint2 shared_pair(u32 address) {
    uint2 pair;
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2 + %3];"
                 : "=r"(pair.x), "=r"(pair.y)
                 : "r"(address), "n"(further)
                 : "memory");
    return pair;
}

// Bytes by a selector whose digits above 7 replicate the sign of byte (digit - 8).
__device__ __forceinline__ u32 permuted(u32 low, u32 high, u32 selector) {
    u32 result;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(low), "r"(high), "r"(selector));
    return result;
}

// The value where bit 7 of a byte of `word` is set, else 0; `selector` is that byte's + 8, four times.
__device__ __forceinline__ float where(u32 word, u32 selector, float value) {
    return __uint_as_float(__float_as_uint(value) & permuted(word, 0, selector));
}

// Products as the left side of the next ones: two of 8 columns are 16 of k, and each lane already has its part.
__device__ __forceinline__ void narrow(Rows& to, const float (&sum)[32]) {
#pragma unroll
    for (int at = 0; at < 16; ++at)
        to.step[at / 4][at % 4] = packed<IN_KIND>(sum[2 * at], sum[2 * at + 1]);
}

// Writes 64 elements of the rows l / 4 and l / 4 + 8 of a warp's 16, each times a factor.
__device__ __forceinline__ void store(u16* low, u16* high, const float (&sum)[32], float low_factor, float high_factor) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (int at = 0; at < 2; ++at) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float factor = half ? high_factor : low_factor;
            u32 vector[4];
#pragma unroll
            for (int product = 0; product < 4; ++product) {
                const float* own = &sum[16 * at + 4 * product + 2 * half];
                vector[product] = packed<IN_KIND>(own[0] * factor, own[1] * factor);
            }
            exchange(vector, lane);
            *(uint4*)((half ? high : low) + 32 * at + 8 * (lane % 4)) =
                make_uint4(vector[0], vector[1], vector[2], vector[3]);
        }
    }
}

#if PROJECTED
// Turns a warp's 16 rows back by the angles of two positions: the gradients of what rotary position embedding turned (Su et
// al., RoFormer; element i with i + 8 TURNED). A lane has both of each pair.
__device__ __forceinline__ void turn_back(float (&sum)[32], const float* cosines, const float* sines, u32 low, u32 high) {
    const u32 member = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const u32 from = (half ? high : low) * 8 * TURNED + 2 * member;
#pragma unroll
        for (int at = 0; at < TURNED; ++at) {
            const float2 cosine = *(const float2*)(cosines + from + 8 * at), sine = *(const float2*)(sines + from + 8 * at);
            float *first = &sum[4 * at + 2 * half], *second = &sum[4 * (at + TURNED) + 2 * half];
            const float a = first[0], b = first[1];
            first[0] = a * cosine.x + second[0] * sine.x;
            first[1] = b * cosine.y + second[1] * sine.y;
            second[0] = second[0] * cosine.x - a * sine.x;
            second[1] = second[1] * cosine.y - b * sine.y;
        }
    }
}

// Writes the sums of a warp's 16 rows, times a factor.
__device__ __forceinline__ void store_sums(float* to, const float (&sum)[32], float factor) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (int product = 0; product < 8; ++product) {
        float2 own = make_float2(sum[4 * product] + sum[4 * product + 2], sum[4 * product + 1] + sum[4 * product + 3]);
#pragma unroll
        for (int other = 4; other < 32; other *= 2) {
            own.x += __shfl_xor_sync(0xffffffff, own.x, other);
            own.y += __shfl_xor_sync(0xffffffff, own.y, other);
        }
        if (lane < 4)
            *(float2*)(to + 8 * product + 2 * lane) = make_float2(own.x * factor, own.y * factor);
    }
}
#endif
