// A matrix product for compute capability 8.0 and later: out[m, n] = sum over k of a[m, k] b[n, k] (+ bias[n]), or added
// to out.
//
// A block makes one tile of the output, each of its warps 64 x 64 of it. cp.async copies slices of both operands, 64 of
// their k, into a ring of STAGES stages, rows of 128 bytes whose vectors of 16 are permuted so that neither a copy nor a
// read meets a bank twice. ldmatrix brings 16 k at a time to registers, while mma.sync works on the 16 before.
//
// The launcher (shaders/src/cuda_gemm/) puts these before the text:
//   TILE_M, TILE_N   64, 128 or 256; 2 to 8 warps
//   STAGES, GROUP_M  slices in shared memory; rows of tiles that are worked on together
//   A_MN, B_MN, IN, OUT, BIAS, ACCUMULATE, WIDE, TURNED, HEAD   as in hopper_gemm.cu
//
// The instructions are in mma.cuh, the order of the tiles and the way to memory in gemm.cuh.

#define PART 64
#define WARPS_N (TILE_N / PART)
#define THREADS (TILE_M / PART * WARPS_N * 32)
// Rows that the block copies at a time, a vector of 8 elements a thread.
#define PASS (THREADS / 8)
#define STEPS (WIDTH / STEP)
#define A_BYTES (TILE_M * ROW_BYTES)
#define STAGE_BYTES (A_BYTES + TILE_N * ROW_BYTES)

// An operand's rows of this thread: of m (or n) from `first` on, or with `mn` of k, in chunks of 64 m (or n).
template <int mn, int rows> struct Copies {
    // Of the slice that is fetched next.
    const u16* from;
    u32 first, extent, k;

    __device__ __forceinline__ Copies(const u16* operand, u32 first, u32 extent, u32 k)
        : first(first), extent(extent), k(k) {
        const u32 row = threadIdx.x / 8, vector = threadIdx.x % 8;
        from = operand + 8 * vector + (mn ? (u64)row * extent + first : (u64)(first + row) * k);
    }

    __device__ __forceinline__ void next() {
        from += mn ? (u64)WIDTH * extent : WIDTH;
    }

    // Its part of those of slice `slice` that belong to `step`: all but the last step have some.
    __device__ __forceinline__ void begin(u32 to, u32 slice, int step) const {
        const u32 row = threadIdx.x / 8, vector = threadIdx.x % 8, at = slice * WIDTH;
        to += row * ROW_BYTES + ((vector ^ row % 8) << 4);
#pragma unroll
        for (int pass = 0; pass < rows / PASS; ++pass) {
            if (pass % (STEPS - 1) != step)
                continue;
            const u32 down = pass * PASS, chunk = mn ? down / WIDTH * WIDTH : 0;
            const bool there = mn ? at + row + down % WIDTH < k && first + chunk + 8 * vector < extent
                                  : first + row + down < extent && at + 8 * vector < k;
            const u64 further = mn ? (u64)(down % WIDTH) * extent + chunk : (u64)down * k;
            copy_vector(to + down * ROW_BYTES, from + further, there ? 16 : 0);
        }
    }
};

extern "C" __global__ void __launch_bounds__(THREADS)
    ampere_gemm(const u16* a, const u16* b, const Bias* bias, Out* out, TABLES const __grid_constant__ Info info) {
    extern __shared__ __align__(1024) unsigned char pool[];
    // Permuted places are found by exclusive or.
    const u32 stages = (shared_address(pool) + ROW_BYTES * 8 - 1) / (ROW_BYTES * 8) * (ROW_BYTES * 8);
    const u32 m = (u32)info.m, n = (u32)info.n, k = (u32)info.k;
    const Place at = place(blockIdx.x, (m + TILE_M - 1) / TILE_M, (n + TILE_N - 1) / TILE_N);
    const u32 slices = (k + WIDTH - 1) / WIDTH;
    Copies<A_MN, TILE_M> copies_a(a, at.m, m, k);
    Copies<B_MN, TILE_N> copies_b(b, at.n, n, k);
    u32 next = 0, to = stages;
    // Part of the slice that is fetched next, if there is one.
    auto begin = [&](int step) {
        if (next < slices) {
            copies_a.begin(to, next, step);
            copies_b.begin(to + A_BYTES, next, step);
        }
    };
    auto commit = [&] {
        asm volatile("cp.async.commit_group;" ::: "memory");
        ++next;
        copies_a.next();
        copies_b.next();
        to = to == stages + (STAGES - 1) * STAGE_BYTES ? stages : to + STAGE_BYTES;
    };
    for (int stage = 0; stage < STAGES - 1; ++stage) {
#pragma unroll
        for (int step = 0; step < STEPS - 1; ++step)
            begin(step);
        commit();
    }
    const u32 warp = threadIdx.x / 32, warp_m = warp / WARPS_N, warp_n = warp % WARPS_N;
    // 64 rows, or one chunk of them: as many bytes.
    const u32 own_a = warp_m * CHUNK_BYTES + own_row(!A_MN);
    const u32 own_b = A_BYTES + warp_n * CHUNK_BYTES + own_row(B_MN);
    u32 from = stages;
    u32 left[2][PART / STEP][4], right[2][PART / STEP][4];
    float sum[PART / STEP][PART / 2] = {};
    auto fetch = [&](int step) {
#pragma unroll
        for (int i = 0; i < PART / STEP; ++i) {
            load<A_MN>(left[step % 2][i], place_of<A_MN>(from + own_a, i, step));
            load<B_MN>(right[step % 2][i], place_of<B_MN>(from + own_b, i, step));
        }
    };
    // The slice after the last that is worked on is there, and its predecessor's stage read by all.
    auto arrive = [&] {
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
        __syncthreads();
    };
    arrive();
    fetch(0);
    for (u32 slice = 0; slice < slices; ++slice) {
#pragma unroll
        for (int step = 0; step < STEPS; ++step) {
            if (step == STEPS - 1) {
                commit();
                arrive();
                from = from == stages + (STAGES - 1) * STAGE_BYTES ? stages : from + STAGE_BYTES;
            }
            fetch((step + 1) % STEPS);
            if (step < STEPS - 1)
                begin(step);
#pragma unroll
            for (int i = 0; i < PART / STEP; ++i) {
#pragma unroll
                for (int j = 0; j < PART / STEP; ++j) {
                    const u32(&vector)[4] = right[step % 2][j];
                    mma(&sum[i][8 * j], left[step % 2][i], vector[0], vector[1]);
                    mma(&sum[i][8 * j + 4], left[step % 2][i], vector[2], vector[3]);
                }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < PART / STEP; ++i)
        store<PART>(sum[i], out + info.start, bias, TURNS, info, at.m + warp_m * PART + i * STEP, at.n + warp_n * PART);
}
