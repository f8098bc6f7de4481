// dK = dS^T Q and dV = (P . M)^T dO by key: see attention.cuh, and attention_dq.cu for dS.
//
// The products are those of the transposed scores, K Q^T, so that P^T and dS^T are left sides as they stand. Row g of a
// warp's fragments is its key 2g, row g + 8 the key after: a lane's keys then share a word of their call of Philox. Eight
// lanes need each query's call: the warp's lanes make them, two each, and pass them on through shared memory.

// Words of a warp's calls: word w of its queries' at w * APART. Eight more than the queries keep a quad's words in banks
// of their own.
#define APART (BLOCK + 8)

// From a lane's scores of product `product` and dO V^T: probabilities that are kept, and dS without its factors.
template <int product>
__device__ __forceinline__ void weigh(float (&s)[32], float (&dp)[32], u32 stats_at, u32 words_at, const u32 (&selector)[2],
                                      float scale) {
    // Log-sum-exp and delta of two queries, and the words of their calls.
    const float4 stats = shared_vector<64 * product>(stats_at);
    uint2 words = make_uint2(0, 0);
    if (DROPOUT)
        words = shared_pair<32 * product>(words_at);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const int at = 4 * product + 2 * half + e;
            const float p = power2(s[at] * scale - (e ? stats.z : stats.x));
            const float left = DROPOUT ? where(e ? words.y : words.x, selector[half], p) : p;
            s[at] = left;
            dp[at] = left * dp[at] - p * (e ? stats.w : stats.y);
        }
    }
}

extern "C" __global__ void BOUNDS(2)
    attention_dk_dv(MAPS(query_map, gradient_map, stats_map) const u16* fused, const u16* d_o, const float2* stats,
                    u16* into, PROJECTION const __grid_constant__ Info info) {
    extern __shared__ __align__(1024) unsigned char pool[];
    __shared__ u32 calls[DROPOUT ? WARPGROUPS * 4 : 1][4 * APART];
    __shared__ uint4 held_rows[HELD_VECTORS];
    const Place here(info);
    const u32 seq = (u32)info.seq, hidden = (u32)info.heads * DIMS;
    // The first keys are seen by the most queries, and begin first as they are. Queries before them see none of them.
    const u32 first = here.tile * WARPGROUPS * BLOCK, end = seq / BLOCK;
    const Queries queries(OF(query_map), OF(gradient_map), OF(stats_map), fused, d_o, stats, here, info);
    Ring<Queries> ring(pool, queries, first / BLOCK, end);
    if (ring.fetches())
        return;
    const u32 warpgroup = uniform(own_thread() / WARPGROUP), warp = threadIdx.x % WARPGROUP / 32;
    const u32 lane = threadIdx.x % 32, member = lane % 4, quad = lane / 4;
    const u32 own_first = first + warpgroup * BLOCK, key = own_first + warp * 16 + 2 * quad;
    const u32 own = own_first / BLOCK;
    for (u32 block = first / BLOCK; block < min(own, end); ++block)
        ring.pass();
    if (own >= end)
        return;
    const u64 token = (u64)here.sequence * seq + key;
    Rows p, ds;
    const u16* from = fused + token * info.width + hidden + here.head * DIMS;
    Held held(held_rows);
    p.load(from, from + info.width);
    held.put<0>(p);
    from += hidden;
    p.load(from, from + info.width);
    held.put<1>(p);
    float s[32], dp[32], dk[32] = {}, dv[32] = {};
    const float scale = bits(info.scale) * LOG2E;
    u32* drawn = calls[DROPOUT ? warpgroup * 4 + warp : 0];
    const u32 words = shared_address(drawn) + (quad / 2 * APART + 2 * member) * 4;
    // The byte of a lane's first key in its word, and that of the next.
    const u32 selector[2] = {0x8888 + 0x1111 * (2 * (quad % 2)), 0x9999 + 0x1111 * (2 * (quad % 2))};
    u32 before = 0, rows = 0;
    auto begin = [&] {
        const Rows k = held.taken<0>(), v = held.taken<1>();
        ring.wait();
        fence_registers();
        multiply<0, 0>(s, k, ring.place());
        multiply<0, 0>(dp, v, ring.place() + CHUNK_BYTES);
        commit();
    };
    // Of the block before.
    auto add_queries = [&] {
        multiply<1, 1>(dk, ds, rows);
        commit();
    };
    auto work = [&](u32 block) {
        if (DROPOUT) {
            // Nobody reads the words of the block before any more.
            __syncwarp();
            // One after the other: together they spill registers.
#pragma unroll 1
            for (u32 query = lane; query < BLOCK; query += 32) {
                const Kept call = draw(info, here, block * BLOCK + query, key / 16);
#pragma unroll
                for (int word = 0; word < 4; ++word)
                    drawn[word * APART + query] = call.word[word];
            }
            __syncwarp();
        }
        wait_for<1>(s);
        hold(dp);
        hold(dv);
        if (block == own) {
#pragma unroll
            for (int at = 0; at < 32; ++at)
                if (key + at / 2 % 2 > block * BLOCK + at / 4 * 8 + 2 * member + at % 2)
                    s[at] = MASKED;
        }
        const u32 stats_at = ring.place() + Queries::STATS + 16 * member;
        weigh<0>(s, dp, stats_at, words, selector, scale);
        weigh<1>(s, dp, stats_at, words, selector, scale);
        weigh<2>(s, dp, stats_at, words, selector, scale);
        weigh<3>(s, dp, stats_at, words, selector, scale);
        weigh<4>(s, dp, stats_at, words, selector, scale);
        weigh<5>(s, dp, stats_at, words, selector, scale);
        weigh<6>(s, dp, stats_at, words, selector, scale);
        weigh<7>(s, dp, stats_at, words, selector, scale);
        // Its values' gradients are on their way while the rest is narrowed, and the keys' while the next block is weighed:
        // so their registers are free there.
        narrow(p, s);
        wait_for<0>(dk);
        hold(dp);
        if (block > own)
            ring.free(before);
        fence_registers();
        multiply<1, 1>(dv, p, ring.place() + CHUNK_BYTES);
        commit();
        narrow(ds, dp);
        before = ring.stage;
        rows = ring.place();
        ring.next();
    };
    begin();
    // For the block that there is none before.
    commit();
    work(own);
    for (u32 block = own + 1; block < end; ++block) {
        begin();
        add_queries();
        work(block);
    }
    fence_registers();
    add_queries();
    wait_for<0>(dk);
    hold(dv);
    const float kept = bits(info.kept), factor = bits(info.scale) * kept;
    // As before the loop, where it would be kept in registers.
    u32 own_key = key;
    asm volatile("" : "+r"(own_key));
    const u64 own_token = (u64)here.sequence * seq + own_key;
#if PROJECTED
    turn_back(dk, cosines, sines, own_key, own_key + 1);
    float* sums_to = sums + own_token / 16 * 3 * hidden + hidden + here.head * DIMS;
    store_sums(sums_to, dk, factor);
    store_sums(sums_to + hidden, dv, kept);
#endif
    u16* to = into + own_token * info.width + hidden + here.head * DIMS;
    store(to, to + info.width, dk, factor, factor);
    to += hidden;
    store(to, to + info.width, dv, kept, kept);
}
