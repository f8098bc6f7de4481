// The instructions of compute capability 9.0: mbarriers, tensor copies, clusters, and what wgmma reads. Comes after base.cuh.
//
// Sources: PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions" (descriptors, layouts, fragments), "mbarrier",
// "cp.async.bulk.tensor", "barrier.cluster". No headers: NVRTC has none of its own.

struct alignas(64) CUtensorMap {
    u64 opaque[16];
};

// The swizzle's pattern repeats after 8 rows.
#define ATOM_BYTES (8 * ROW_BYTES)
#if CLUSTER > 1
#define SCOPE "cluster"
#define IN_CLUSTER __cluster_dims__(CLUSTER, 1, 1)
#else
#define SCOPE "cta"
#define IN_CLUSTER
#endif

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

// Registers of one wgmma's sums, by number: inline assembly has no loops.
#define SUM8(o) \
    "+f"(sum[o]), "+f"(sum[o + 1]), "+f"(sum[o + 2]), "+f"(sum[o + 3]), "+f"(sum[o + 4]), "+f"(sum[o + 5]), \
        "+f"(sum[o + 6]), "+f"(sum[o + 7])
#define SUM32(o) SUM8(o), SUM8(o + 8), SUM8(o + 16), SUM8(o + 24)

// Descriptor of a tile with the 128-byte swizzle (PTX ISA, "Matrix Descriptor Format"). The stride byte offset leads
// from 8 rows to the next 8; the leading one, where m (or n) runs along the rows, from a chunk of 64 to the next.
__device__ __forceinline__ u64 descriptor(u32 address) {
    const u64 stride = ATOM_BYTES >> 4, leading = CHUNK_BYTES >> 4, swizzle = 1;
    return (u64)((address & 0x3ffff) >> 4) | leading << 16 | stride << 32 | swizzle << 62;
}

// What 16 further k add to a descriptor: 32 bytes within the rows, or 16 rows.
template <int mn> __device__ __forceinline__ u64 step_of(int step) {
    return (u64)step * ((mn ? STEP * ROW_BYTES : STEP * 2) >> 4);
}

__device__ __forceinline__ void barrier_init(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// One warp has read a stage: every block that writes to it hears of that.
__device__ __forceinline__ void barrier_arrive(u32 barrier, u32 lane) {
    if constexpr (CLUSTER == 1) {
        if (lane == 0)
            asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
    } else if (lane < CLUSTER) {
        asm volatile(
            "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
            "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n}\n" ::"r"(barrier),
            "r"(lane)
            : "memory");
    }
}

__device__ __forceinline__ void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

// Until the phase of that parity is complete.
__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity) {
    u32 done;
    do {
        asm volatile(
            "{\n.reg .pred done;\nmbarrier.try_wait.parity.acquire." SCOPE ".shared::cta.b64 done, [%1], %2;\n"
            "selp.u32 %0, 1, 0, done;\n}\n"
            : "=r"(done)
            : "r"(barrier), "r"(parity)
            : "memory");
    } while (!done);
}

// Fetches the box at (x, y), x along the rows in memory; what lies outside the matrix is zero. `shared`: into the same
// place of every block of the cluster.
template <bool shared>
__device__ __forceinline__ void fetch(u32 to, const CUtensorMap* map, u32 barrier, u32 x, u32 y) {
    if constexpr (shared) {
        const u16 blocks = (1 << CLUSTER) - 1;
        asm volatile(
            "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster"
            " [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
            "l"(map), "r"(x), "r"(y), "r"(barrier), "h"(blocks)
            : "memory");
    } else {
        asm volatile(
            "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
            " [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
            "l"(map), "r"(x), "r"(y), "r"(barrier)
            : "memory");
    }
}

// All threads of the cluster, and what they have written to shared memory.
__device__ __forceinline__ void meet() {
    if constexpr (CLUSTER == 1) {
        __syncthreads();
    } else {
        asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
        asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
    }
}
