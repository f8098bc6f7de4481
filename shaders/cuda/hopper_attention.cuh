// Attention for Hopper (sm_90a): TMA copies blocks of rows into a ring of stages guarded by two mbarriers each (full, empty),
// wgmma multiplies. Comes after base.cuh, attention.cuh and hopper.cuh.

#define THREADS ((WARPGROUPS + 1) * WARPGROUP)
// Of which a multiprocessor holds one: all registers are its.
#define BOUNDS(warpgroups) __launch_bounds__(THREADS, 1)
// Registers of a thread that fetches and of one that multiplies: 65,536 for all threads.
#if WARPGROUPS == 3
#define FETCHING "32"
#define MULTIPLYING "160"
#else
#define FETCHING "24"
#define MULTIPLYING "240"
#endif

// Tensor maps come first of a kernel's parameters, then what they are of, which is not read through.
typedef const CUtensorMap* Map;
#define MAP(a) const __grid_constant__ CUtensorMap a, const void*,
#define MAPS(a, b, c) \
    const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b, \
        const __grid_constant__ CUtensorMap c, const void*, const void*, const void*,
#define OF(a) (&a)

// Of those that multiply.
__device__ __forceinline__ u32 own_thread() {
    return threadIdx.x - WARPGROUP;
}

// Stages, after them their barriers. A warpgroup of its own fetches.
template <class Source> struct Ring {
    const Source& source;
    u32 stages, first, end;
    u32 stage = 0, parity = 0;

    __device__ __forceinline__ u32 full() const {
        return stages + STAGES * Source::BYTES + 8 * stage;
    }
    __device__ __forceinline__ u32 empty(u32 of) const {
        return stages + STAGES * Source::BYTES + 8 * (STAGES + of);
    }
    __device__ __forceinline__ u32 place() const {
        return stages + stage * Source::BYTES;
    }
    __device__ __forceinline__ void next() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }

    // The swizzle counts rows from addresses that are multiples of its pattern.
    __device__ __forceinline__ Ring(const unsigned char* pool, const Source& source, u32 first, u32 end)
        : source(source), first(first), end(end) {
        stages = (shared_address(pool) + ATOM_BYTES - 1) / ATOM_BYTES * ATOM_BYTES;
        if (threadIdx.x == 0) {
            for (u32 at = 0; at < STAGES; ++at) {
                barrier_init(stages + STAGES * Source::BYTES + 8 * at, 1);
                barrier_init(empty(at), WARPGROUPS * WARPGROUP / 32);
            }
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        }
        __syncthreads();
    }

    // Whether this thread is one of those that fetch: then all blocks have been, and it is done.
    __device__ __forceinline__ bool fetches() {
        if (threadIdx.x >= WARPGROUP) {
            asm volatile("setmaxnreg.inc.sync.aligned.u32 " MULTIPLYING ";");
            return false;
        }
        asm volatile("setmaxnreg.dec.sync.aligned.u32 " FETCHING ";");
        if (threadIdx.x == 0) {
            for (u32 block = first; block < end; ++block) {
                // The phase before the first counts as complete.
                barrier_wait(empty(stage), parity ^ 1);
                barrier_expect(full(), Source::FETCHED);
                source.fetch(place(), full(), block);
                next();
            }
        }
        return true;
    }

    // Until the next block is there.
    __device__ __forceinline__ void wait() {
        barrier_wait(full(), parity);
    }

    // This warp has read a stage.
    __device__ __forceinline__ void free(u32 of) {
        barrier_arrive(empty(of), threadIdx.x % 32);
    }

    // A block that this warp has no use for.
    __device__ __forceinline__ void pass() {
        wait();
        free(stage);
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

// A head's keys and their values.
struct Keys {
    static constexpr u32 BYTES = 2 * CHUNK_BYTES, FETCHED = BYTES;
    Map map;
    u32 hidden, x, row;

    __device__ __forceinline__ Keys(Map map, const u16*, const Place& here, const Info& info)
        : map(map), hidden((u32)info.heads * DIMS), x(here.head * DIMS), row(here.sequence * (u32)info.seq) {}

    __device__ __forceinline__ void fetch(u32 to, u32 barrier, u32 block) const {
        fetch_keys(to, map, barrier, hidden + x, row + block * BLOCK);
        fetch_keys(to + CHUNK_BYTES, map, barrier, 2 * hidden + x, row + block * BLOCK);
    }
};

// A head's queries, their gradients of o and their stats.
struct Queries {
    static constexpr u32 STATS = 2 * CHUNK_BYTES, FETCHED = STATS + BLOCK * sizeof(float2), BYTES = STATS + ATOM_BYTES;
    Map queries, gradients, stats;
    u32 x, row, stats_row;

    __device__ __forceinline__ Queries(Map queries, Map gradients, Map stats, const u16*, const u16*, const float2*,
                                       const Place& here, const Info& info)
        : queries(queries), gradients(gradients), stats(stats), x(here.head * DIMS),
          row(here.sequence * (u32)info.seq), stats_row((u32)here.row(info)) {}

    __device__ __forceinline__ void fetch(u32 to, u32 barrier, u32 block) const {
        fetch_rows(to, queries, barrier, x, row + block * BLOCK);
        fetch_rows(to + CHUNK_BYTES, gradients, barrier, x, row + block * BLOCK);
        asm volatile(
            "cp.async.bulk.tensor.1d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
            " [%0], [%1, {%2}], [%3];" ::"r"(to + STATS),
            "l"(stats), "r"(2 * (stats_row + block * BLOCK)), "r"(barrier)
            : "memory");
    }
};

// Two sets of rows that a thread puts into shared memory and takes each time anew, since they then hold registers only
// while they are multiplied. The threads' parts of a step lie side by side.
#define HELD_VECTORS (2 * 4 * WARPGROUPS * WARPGROUP)
struct Held {
    u32 at;

    __device__ __forceinline__ explicit Held(const uint4* pool) : at(shared_address(pool + own_thread())) {}

    template <int set> __device__ __forceinline__ void put(const Rows& rows) {
#pragma unroll
        for (int step = 0; step < 4; ++step)
            asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(at + (4 * set + step) * WARPGROUPS * WARPGROUP * 16),
                         "r"(rows.step[step][0]), "r"(rows.step[step][1]), "r"(rows.step[step][2]),
                         "r"(rows.step[step][3])
                         : "memory");
    }

    template <int set> __device__ __forceinline__ Rows taken() const {
        Rows rows;
#pragma unroll
        for (int step = 0; step < 4; ++step)
            asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(rows.step[step][0]), "=r"(rows.step[step][1]), "=r"(rows.step[step][2]),
                           "=r"(rows.step[step][3])
                         : "r"(at + (4 * set + step) * WARPGROUPS * WARPGROUP * 16)
                         : "memory");
        return rows;
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
