// A matrix product for Hopper (sm_90a): out[m, n] = sum over k of a[m, k] b[n, k] (+ bias[n]), or added to out.
//
// One block a multiprocessor walks over the tiles of the output. Its first warpgroup fetches: TMA copies a slice of
// both operands, 64 of their k, into a ring of STAGES stages, each guarded by two mbarriers (full, empty). The other
// two multiply: wgmma.mma_async reads both from shared memory, swizzled by 128 bytes, and sums in fp32 registers.
//
// The launcher (shaders/src/cuda_gemm/) puts these before the text:
//   TILE_M 128 or 256, TILE_N 64, 128 or 256, STAGES, GROUP_M (rows of tiles that are worked on together)
//   CLUSTER      blocks that work on tiles one below the other, and share what they fetch of b: 1, or 2 if TILE_N > 64
//   A_MN, B_MN   0: k runs along the operand's rows in memory; 1: m (or n) does
//   IN           "f16" or "bf16"
//   OUT, BIAS    NONE (bias only), F16, BF16 or F32
//   ACCUMULATE   1: add to out
//   WIDE         1: rows of out and its start are aligned for vectors (8 elements of 16 bits, 2 of 32)
//   TURNED, HEAD columns that turn (gemm.cuh); 0 and any: none
//
// The instructions are in hopper.cuh and wgmma.cuh, the order of the tiles and the way to memory in gemm.cuh.

// 64-row parts of a tile: of all, and of one warpgroup.
#define PARTS (TILE_M / 64)
#define OWN (PARTS / 2)
#define A_BYTES (TILE_M * ROW_BYTES)
#define B_BYTES (TILE_N * ROW_BYTES)
#define STAGE_BYTES (A_BYTES + B_BYTES)
#define MULTIPLYING_WARPS 8
// Rows of b that a block of the cluster fetches for all.
#define SHARE (TILE_N / CLUSTER)

// The tensor maps' and the operands' own pointers are CubeCL's; the copies go through the maps.
extern "C" __global__ void IN_CLUSTER __launch_bounds__(3 * WARPGROUP, 1)
    hopper_gemm(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b, const void*,
                const void*, const void*, const void*, const Bias* bias, Out* out, TABLES const __grid_constant__ Info info) {
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
                store<TILE_N>(sum[part], out + info.start, bias, TURNS, info, row, at.n);
            }
        }
    }
    // Nobody goes while another block still writes to its memory or barriers.
    if (CLUSTER > 1)
        meet();
}
