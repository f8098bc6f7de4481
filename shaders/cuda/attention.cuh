// Attention for Hopper (sm_90a), heads of 64 elements, sequences of whole blocks of 64: what its kernels have in common.
//
// A warpgroup owns 64 rows: queries in forward and for dq, keys for dk and dv. Their elements are in registers, as the
// left side of wgmma; the other side arrives in blocks of 64 rows, which TMA copies into a ring of stages guarded by two
// mbarriers each (full, empty). As in FlashAttention-3 (Shah et al., 2024) the scores of a block are multiplied together
// with what became of the block before: its exponentials, in registers as well, times values that are still there.
//
// The launcher (shaders/src/attention/hopper/) puts these before the text:
//   WARPGROUPS, STAGES   warpgroups that multiply; blocks in shared memory
//   IN, IN_KIND          "f16" and F16, or "bf16" and BF16
//   DROPOUT              1: with dropout
//
// Comes after base.cuh and hopper.cuh.

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
#define THREADS ((WARPGROUPS + 1) * WARPGROUP)
// Registers of a thread that fetches and of one that multiplies: 65,536 for all threads.
#if WARPGROUPS == 3
#define FETCHING "32"
#define MULTIPLYING "160"
#else
#define FETCHING "24"
#define MULTIPLYING "240"
#endif

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

// Stages, after them their barriers.
struct Ring {
    u32 stages;
    // Of a stage, and of what is fetched into it.
    u32 bytes, fetched;
    u32 stage = 0, parity = 0;

    __device__ __forceinline__ u32 full() const {
        return stages + STAGES * bytes + 8 * stage;
    }
    __device__ __forceinline__ u32 empty(u32 of) const {
        return stages + STAGES * bytes + 8 * (STAGES + of);
    }
    __device__ __forceinline__ u32 place() const {
        return stages + stage * bytes;
    }
    __device__ __forceinline__ void next() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }

    // The swizzle counts rows from addresses that are multiples of its pattern.
    __device__ __forceinline__ Ring(const unsigned char* pool, u32 bytes, u32 fetched)
        : bytes(bytes), fetched(fetched) {
        stages = (shared_address(pool) + ATOM_BYTES - 1) / ATOM_BYTES * ATOM_BYTES;
        if (threadIdx.x == 0) {
            for (u32 at = 0; at < STAGES; ++at) {
                barrier_init(stages + STAGES * bytes + 8 * at, 1);
                barrier_init(empty(at), WARPGROUPS * WARPGROUP / 32);
            }
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        }
        __syncthreads();
    }

    // By the thread that fetches: a stage to fill.
    __device__ __forceinline__ void begin() const {
        // The phase before the first counts as complete.
        barrier_wait(empty(stage), parity ^ 1);
        barrier_expect(full(), fetched);
    }

    // A block that this warp has no use for.
    __device__ __forceinline__ void pass() {
        barrier_wait(full(), parity);
        barrier_arrive(empty(stage), threadIdx.x % 32);
        next();
    }
};

// 64 rows of a head: the first at `row`, its columns from `x` on.
__device__ __forceinline__ void fetch_rows(u32 to, const CUtensorMap* map, u32 barrier, u32 x, u32 row) {
    fetch<false>(to, map, barrier, x, row);
}

// 64 keys, or their values. With dropout key 16 t + 2 p + e is fetched as row 8 p + 2 t + e: lane t of four, which has
// columns 2t and 2t + 1 of each of the eight products p, gets keys 16t to 16t + 15, those of one call of Philox. The map
// has dimensions for e, t, p and the block.
__device__ __forceinline__ void fetch_keys(u32 to, const CUtensorMap* map, u32 barrier, u32 x, u32 row) {
#if DROPOUT
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%2, %3, %3, %3, %4}], [%5];" ::"r"(to),
        "l"(map), "r"(x), "r"(0), "r"(row / BLOCK), "r"(barrier)
        : "memory");
#else
    fetch_rows(to, map, barrier, x, row);
#endif
}

// The key of a block whose score is element e of product p.
__device__ __forceinline__ u32 key_of(u32 member, int p, int e) {
    return DROPOUT ? 16 * member + 2 * p + e : 8 * p + 2 * member + e;
}

// Keys and values of all blocks that `tile`'s queries see.
__device__ __forceinline__ void fetch_all_keys(Ring& ring, const CUtensorMap* map, const Place& here, const Info& info,
                                               u32 blocks) {
    const u32 hidden = (u32)info.heads * DIMS, x = here.head * DIMS, row = here.sequence * (u32)info.seq;
    for (u32 block = 0; block < blocks; ++block) {
        ring.begin();
        fetch_keys(ring.place(), map, ring.full(), hidden + x, row + block * BLOCK);
        fetch_keys(ring.place() + CHUNK_BYTES, map, ring.full(), 2 * hidden + x, row + block * BLOCK);
        ring.next();
    }
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

// sum = a b, plus what sum held where it `adds`: 64 x 64 x 16. b's k runs along its rows, or with `mn` down them.
template <int mn, int adds> __device__ __forceinline__ void multiply(float (&sum)[32], const u32 (&a)[4], u64 b) {
    asm volatile(
        "{\n.reg .pred adds;\nsetp.ne.b32 adds, %37, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." IN "." IN
        " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, adds, 1, 1, %38;\n}\n"
        : SUM32(0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(adds), "n"(mn));
}

// The same for 64 of k: a staged block at `from`.
template <int mn, int adds> __device__ __forceinline__ void multiply(float (&sum)[32], const Rows& a, u32 from) {
    const u64 b = descriptor(from);
    multiply<mn, adds>(sum, a.step[0], b);
#pragma unroll
    for (int at = 1; at < 4; ++at)
        multiply<mn, 1>(sum, a.step[at], b + step_of<mn>(at));
}

__device__ __forceinline__ void fence_registers() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Until at most `pending` groups are. It names sums that are then done, so that the compiler moves nothing that uses
// them before it.
template <int pending> __device__ __forceinline__ void wait_for(float (&sum)[32]) {
    asm volatile("wgmma.wait_group.sync.aligned %32;" : SUM32(0) : "n"(pending) : "memory");
}

// What follows and uses these stays after what came before.
__device__ __forceinline__ void hold(float (&sum)[32]) {
    asm volatile("" : SUM32(0)::"memory");
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
        const u64 first = (u64)0xD2511F53 * c0, second = (u64)0xCD9E8D57 * c2;
        c0 = (u32)(second >> 32) ^ c1 ^ (u32)info.keys[round];
        c1 = (u32)second;
        c2 = (u32)(first >> 32) ^ c3 ^ (u32)(info.keys[round] >> 32);
        c3 = (u32)first;
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
