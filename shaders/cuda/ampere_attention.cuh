// Attention for compute capability 8.0 and later: all threads copy blocks of rows with cp.async and multiply with mma.sync.
// Comes after base.cuh, attention.cuh and mma.cuh.

#define THREADS (WARPGROUPS * WARPGROUP)
// Registers for so many warpgroups on a multiprocessor.
#define BOUNDS(warpgroups) __launch_bounds__(THREADS, (warpgroups) / WARPGROUPS)

// There are no tensor maps here.
typedef const void* Map;
#define MAP(a)
#define MAPS(a, b, c)
#define OF(a) nullptr

__device__ __forceinline__ u32 own_thread() {
    return threadIdx.x;
}

// Stages, rows permuted. When a block is worked on, the products of the one before still read its stage, and STAGES - 2
// after it are on their way.
template <class Source> struct Ring {
    const Source& source;
    u32 stages, next_block, end;
    u32 stage = 0, next_stage = 0;

    // The permutation counts rows from addresses that are multiples of its pattern.
    __device__ __forceinline__ Ring(const unsigned char* pool, const Source& source, u32 first, u32 end)
        : source(source), next_block(first), end(end) {
        stages = (shared_address(pool) + 8 * ROW_BYTES - 1) / (8 * ROW_BYTES) * (8 * ROW_BYTES);
        for (int at = 0; at < STAGES - 2; ++at)
            begin();
    }

    // A group a block, also where there is none any more: waits count groups.
    __device__ __forceinline__ void begin() {
        if (next_block < end)
            source.fetch(stages + next_stage * Source::BYTES, next_block);
        asm volatile("cp.async.commit_group;" ::: "memory");
        ++next_block;
        next_stage = next_stage + 1 == STAGES ? 0 : next_stage + 1;
    }

    __device__ __forceinline__ bool fetches() const {
        return false;
    }

    __device__ __forceinline__ u32 place() const {
        return stages + stage * Source::BYTES;
    }

    // Until the next block is there, and nobody works on the one before any more: then its predecessor's stage is filled
    // again.
    __device__ __forceinline__ void wait() {
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 3) : "memory");
        __syncthreads();
        begin();
    }

    __device__ __forceinline__ void free(u32) {}

    __device__ __forceinline__ void next() {
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }

    // A block that this warp has no use for.
    __device__ __forceinline__ void pass() {
        wait();
        next();
    }
};

// This thread's part of 64 rows of 64 elements, `width` apart: row `row_of(r)` becomes row r.
template <class RowOf>
__device__ __forceinline__ void fetch_rows(u32 to, const u16* from, u64 width, RowOf row_of) {
    const u32 vector = threadIdx.x % 8;
#pragma unroll
    for (u32 first = 0; first < BLOCK; first += THREADS / 8) {
        const u32 row = first + threadIdx.x / 8;
        if (BLOCK % (THREADS / 8) == 0 || row < BLOCK)
            copy_vector(to + row * ROW_BYTES + ((vector ^ row % 8) << 4), from + row_of(row) * width + 8 * vector, 16);
    }
}

// A head's keys and their values.
struct Keys {
    static constexpr u32 BYTES = 2 * CHUNK_BYTES;
    const u16* keys;
    u64 width, hidden;

    __device__ __forceinline__ Keys(Map, const u16* fused, const Place& here, const Info& info)
        : width(info.width), hidden(info.heads * DIMS) {
        keys = fused + (u64)here.sequence * info.seq * width + hidden + here.head * DIMS;
    }

    __device__ __forceinline__ void fetch(u32 to, u32 block) const {
        // With dropout lane t of four, which has columns 2t and 2t + 1 of each of the eight products, gets keys 16t to
        // 16t + 15, those of one call of Philox: `key_of`.
        auto row_of = [](u32 row) { return key_of(row % 8 / 2, row / 8, row % 2); };
        const u16* from = keys + (u64)block * BLOCK * width;
        fetch_rows(to, from, width, row_of);
        fetch_rows(to + CHUNK_BYTES, from + hidden, width, row_of);
    }
};

// A head's queries, their gradients of o and their stats.
struct Queries {
    static constexpr u32 STATS = 2 * CHUNK_BYTES, BYTES = STATS + 8 * ROW_BYTES;
    const u16 *queries, *gradients;
    const float2* stats;
    u64 width, hidden;

    __device__ __forceinline__ Queries(Map, Map, Map, const u16* fused, const u16* d_o, const float2* all_stats,
                                       const Place& here, const Info& info)
        : stats(all_stats + here.row(info)), width(info.width), hidden(info.heads * DIMS) {
        queries = fused + (u64)here.sequence * info.seq * width + here.head * DIMS;
        gradients = d_o + (u64)here.sequence * info.seq * hidden + here.head * DIMS;
    }

    __device__ __forceinline__ void fetch(u32 to, u32 block) const {
        auto row_of = [](u32 row) { return row; };
        fetch_rows(to, queries + (u64)block * BLOCK * width, width, row_of);
        fetch_rows(to + CHUNK_BYTES, gradients + (u64)block * BLOCK * hidden, hidden, row_of);
        if (threadIdx.x < BLOCK * sizeof(float2) / 16)
            copy_vector(to + STATS + 16 * threadIdx.x, (const u16*)(stats + block * BLOCK + 2 * threadIdx.x), 16);
    }
};

// Two sets of rows, which here stay in registers.
#define HELD_VECTORS 1
struct Held {
    Rows rows[2];

    __device__ __forceinline__ explicit Held(const uint4*) {}

    template <int set> __device__ __forceinline__ void put(const Rows& put) {
        rows[set] = put;
    }

    template <int set> __device__ __forceinline__ const Rows& taken() const {
        return rows[set];
    }
};

// sum = a b, plus what sum held where it `adds`: 64 x 64 x 64, with a staged block at `from`. b's k runs along its rows, or
// with `mn` down them.
template <int mn, int adds> __device__ __forceinline__ void multiply(float (&sum)[32], const Rows& a, u32 from) {
    if (!adds) {
#pragma unroll
        for (int at = 0; at < 32; ++at)
            sum[at] = 0;
    }
    const u32 own = from + own_row(mn);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
#pragma unroll
        for (int pair = 0; pair < 4; ++pair) {
            u32 b[4];
            load<mn>(b, place_of<mn>(own, pair, step));
            mma(&sum[8 * pair], a.step[step], b[0], b[1]);
            mma(&sum[8 * pair + 4], a.step[step], b[2], b[3]);
        }
    }
}

// Products are done when they are asked for.
__device__ __forceinline__ void fence_registers() {}
__device__ __forceinline__ void commit() {}
template <int pending> __device__ __forceinline__ void wait_for(float (&)[32]) {}
__device__ __forceinline__ void hold(float (&)[32]) {}
