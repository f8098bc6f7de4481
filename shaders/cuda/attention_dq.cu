// dQ = dS K by query, with dS = P . (M . dO V^T - delta) scale: see attention.cuh.
//
// M is 0 or what kept probabilities are multiplied with. That and the scale are left to the end, so delta, the sum of
// dO . O along a row, is taken without it. With the log-sum-exp in base 2 it goes to `stats`, for dK (attention_dk_dv.cu).

extern "C" __global__ void BOUNDS(2)
    attention_dq(MAP(map) const u16* fused, const u16* d_o, const u16* o, const float* lse, float2* stats, u16* into,
                 PROJECTION const __grid_constant__ Info info) {
    extern __shared__ __align__(1024) unsigned char pool[];
    const Place here(info);
    const Tile tile(here, info);
    const Keys keys(OF(map), fused, here, info);
    Ring<Keys> ring(pool, keys, 0, tile.blocks);
    if (ring.fetches())
        return;
    const Own own(tile, info, own_thread());
    const u32 query = own.query, member = threadIdx.x % 4;
    if (own.blocks > 0) {
        const u64 token = here.sequence * info.seq + query, hidden = info.heads * DIMS;
        Rows q, g, ds;
        const u16* from = fused + token * info.width + here.head * DIMS;
        q.load(from, from + 8 * info.width);
        from = d_o + token * hidden + here.head * DIMS;
        g.load(from, from + 8 * hidden);
        float2 own_stats[2];
        from = o + token * hidden + here.head * DIMS;
        // Until they are needed, ds are the rows of o.
        ds.load(from, from + 8 * hidden);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const u64 at = here.row(info) + query + 8 * half;
            const float delta = dot(g, ds, half) / bits(info.kept);
            own_stats[half] = make_float2(lse[at] * LOG2E, delta);
            if (member == 0)
                stats[at] = own_stats[half];
        }
        float s[32], dp[32], sum[32] = {};
        const float scale = bits(info.scale) * LOG2E;
        u32 before = 0, rows = 0;
        auto begin = [&] {
            ring.wait();
            fence_registers();
            multiply<0, 0>(s, q, ring.place());
            multiply<0, 0>(dp, g, ring.place() + CHUNK_BYTES);
            commit();
        };
        // Of the block before.
        auto add_keys = [&] {
            multiply<1, 1>(sum, ds, rows);
            commit();
        };
        auto work = [&](u32 block) {
            Kept kept[2];
            if (DROPOUT) {
#pragma unroll
                for (int half = 0; half < 2; ++half)
                    kept[half] = draw(info, here, query + 8 * half, block * (BLOCK / 16) + member);
            }
            wait_for<1>(s);
            hold(dp);
            if (block + 1 == own.blocks) {
#pragma unroll
                for (int at = 0; at < 32; ++at)
                    if (block * BLOCK + key_of(member, at / 4, at % 2) > query + at / 2 % 2 * 8)
                        s[at] = MASKED;
            }
#pragma unroll
            for (int at = 0; at < 32; ++at) {
                const int half = at / 2 % 2, byte = at / 4 % 2 * 2 + at % 2;
                const float p = power2(s[at] * scale - own_stats[half].x);
                const float left = DROPOUT ? where(kept[half].word[at / 8], 0x8888 + 0x1111 * byte, p) : p;
                s[at] = left * dp[at] - p * own_stats[half].y;
            }
            wait_for<0>(sum);
            hold(s);
            if (block > 0)
                ring.free(before);
            narrow(ds, s);
            before = ring.stage;
            rows = ring.place();
            ring.next();
        };
        begin();
        // For the block that there is none before.
        commit();
        work(0);
        for (u32 block = 1; block < own.blocks; ++block) {
            begin();
            add_keys();
            work(block);
        }
        fence_registers();
        add_keys();
        wait_for<0>(sum);
        ring.free(before);
        const float factor = bits(info.scale) * bits(info.kept);
#if PROJECTED
        turn_back(sum, cosines, sines, query, query + 8);
        store_sums(sums + token / 16 * 3 * hidden + here.head * DIMS, sum, factor);
#endif
        u16* to = into + token * info.width + here.head * DIMS;
        store(to, to + 8 * info.width, sum, factor, factor);
    }
    for (u32 block = own.blocks; block < tile.blocks; ++block)
        ring.pass();
}
