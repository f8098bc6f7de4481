// The instructions of compute capability 8.0 that products are made of: cp.async, ldmatrix and mma.sync, on tiles whose rows
// of 128 bytes have their vectors of 16 permuted, so that neither a copy nor a read meets a bank twice. Comes after
// base.cuh.

// `size` is 16, or 0 for zeros: nothing is read then.
__device__ __forceinline__ void copy_vector(u32 to, const u16* from, u32 size) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(size) : "memory");
}

// Four matrices of 8 x 8, `trans`posed or not: each lane names a row.
template <int trans> __device__ __forceinline__ void load(u32 (&to)[4], u32 address) {
    if constexpr (trans)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(address)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(address)
                     : "memory");
}

// This lane's row of four matrices two by two, of which the second lies 8 rows below (`down`) or 8 columns beside the
// first.
__device__ __forceinline__ u32 own_row(bool down) {
    const u32 lane = threadIdx.x % 32, second = lane / 8 % 2, later = lane / 16;
    const u32 row = lane % 8 + 8 * (down ? second : later);
    return row * ROW_BYTES + (((down ? later : second) ^ row % 8) << 4);
}

// 16 m (or n) from 16 `at` on of 16 k from 16 `step` on. Rows are 2048 bytes further, which an instruction adds itself;
// columns two vectors, whose place is permuted by bits that rows leave alone.
template <int mn> __device__ __forceinline__ u32 place_of(u32 part, int at, int step) {
    const int rows = mn ? step : at, columns = mn ? at : step;
    return (part ^ (columns << 5)) + rows * STEP * ROW_BYTES;
}

// sum = a b^T + sum; 16 x 8 x 16.
__device__ __forceinline__ void mma(float* sum, const u32 (&a)[4], u32 b_low, u32 b_high) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." IN "." IN ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
}
