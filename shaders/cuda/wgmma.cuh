// wgmma with both operands in shared memory, and how a slice of them gets there: what hopper_gemm.cu is made of. Comes
// after hopper.cuh and gemm.cuh.

#if TILE_N == 64
#define SHAPE "m64n64k16"
#define SUMS \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define A_DESCRIPTOR "%32"
#define B_DESCRIPTOR "%33"
#define ADDS "%34"
#define OPERANDS SUM32(0)
#elif TILE_N == 128
#define SHAPE "m64n128k16"
#define SUMS \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define A_DESCRIPTOR "%64"
#define B_DESCRIPTOR "%65"
#define ADDS "%66"
#define OPERANDS SUM32(0), SUM32(32)
#elif TILE_N == 256
#define SHAPE "m64n256k16"
#define SUMS \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define A_DESCRIPTOR "%128"
#define B_DESCRIPTOR "%129"
#define ADDS "%130"
#define OPERANDS SUM32(0), SUM32(32), SUM32(64), SUM32(96)
#endif

// sum = a b^T, plus what sum held where `adds`; 64 x TILE_N x 16.
__device__ __forceinline__ void multiply(float (&sum)[TILE_N / 2], u64 a, u64 b, u32 adds) {
    asm volatile(
        "{\n.reg .pred adds;\nsetp.ne.u32 adds, " ADDS ", 0;\n"
        "wgmma.mma_async.sync.aligned." SHAPE ".f32." IN "." IN " {" SUMS "}, "
        A_DESCRIPTOR ", " B_DESCRIPTOR ", adds, 1, 1, " TEXT(A_MN) ", " TEXT(B_MN) ";\n}\n"
        : OPERANDS
        : "l"(a), "l"(b), "r"(adds));
}

// Waits for all products. It names the sums, so that the compiler, which does not know that they are still being made,
// moves nothing that uses them before it.
__device__ __forceinline__ void finish(float (&sum)[TILE_N / 2]) {
    asm volatile("wgmma.wait_group.sync.aligned 0;" : OPERANDS::"memory");
}

// A slice of `rows` of an operand's m (or n) from `first` on, and 64 of its k.
template <int mn, int rows, bool shared>
__device__ __forceinline__ void fetch_slice(u32 to, const CUtensorMap* map, u32 barrier, u32 first, u32 k) {
    if constexpr (mn) {
#pragma unroll
        for (int chunk = 0; chunk < rows / WIDTH; ++chunk)
            fetch<shared>(to + chunk * CHUNK_BYTES, map, barrier, first + chunk * WIDTH, k);
    } else {
        fetch<shared>(to, map, barrier, k, first);
    }
}
