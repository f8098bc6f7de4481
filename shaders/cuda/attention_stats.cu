// What attention's gradients need of each query: its log-sum-exp in base 2, and delta = rowsum(dO . O) over what
// kept probabilities are multiplied with. See attention.cuh. Eight lanes share a query of a head.

extern "C" __global__ void __launch_bounds__(256)
    attention_stats(const u16* d_o, const u16* o, const float* lse, float2* stats, const __grid_constant__ Info info) {
    const u32 at = blockIdx.x * 32 + threadIdx.x / 8, part = threadIdx.x % 8;
    const u32 heads = (u32)info.heads, seq = (u32)info.seq, rows = (u32)info.tiles;
    // Of tokens, then heads, as they lie in memory; lanes past the end take the last again.
    const u32 row = min(at, rows - 1), head = row % heads, token = row / heads;
    const uint4 a = ((const uint4*)d_o)[(u64)row * 8 + part], b = ((const uint4*)o)[(u64)row * 8 + part];
    const u32 left[4] = {a.x, a.y, a.z, a.w}, right[4] = {b.x, b.y, b.z, b.w};
    float sum = 0;
#pragma unroll
    for (int word = 0; word < 4; ++word) {
        sum += widened((u16)left[word], IN_KIND) * widened((u16)right[word], IN_KIND);
        sum += widened((u16)(left[word] >> 16), IN_KIND) * widened((u16)(right[word] >> 16), IN_KIND);
    }
#pragma unroll
    for (int other = 1; other < 8; other *= 2)
        sum += __shfl_xor_sync(0xffffffff, sum, other);
    if (part == 0 && at < rows) {
        const u64 to = ((u64)(token / seq) * heads + head) * seq + token % seq;
        stats[to] = make_float2(lse[to] * LOG2E, sum / bits(info.kept));
    }
}
