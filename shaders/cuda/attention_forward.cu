// O = drop(softmax(Q K^T scale)) V with an online softmax, and the log-sum-exp of each row: see attention.cuh.

extern "C" __global__ void BOUNDS(3)
    attention_forward(MAP(map) const u16* fused, u16* o, float* lse, const __grid_constant__ Info info) {
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
        const u64 token = here.sequence * info.seq + query;
        Rows q, p;
        const u16* from = fused + token * info.width + here.head * DIMS;
        q.load(from, from + 8 * info.width);
        float s[32], sum[32] = {};
        float highest[2] = {MASKED, MASKED}, total[2] = {};
        const float scale = bits(info.scale) * LOG2E;
        u32 before = 0, values = 0;
        auto begin = [&] {
            ring.wait();
            fence_registers();
            multiply<0, 0>(s, q, ring.place());
            commit();
        };
        // Of the block before.
        auto add_values = [&] {
            multiply<1, 1>(sum, p, values);
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
            if (block + 1 == own.blocks) {
#pragma unroll
                for (int at = 0; at < 32; ++at)
                    if (block * BLOCK + key_of(member, at / 4, at % 2) > query + at / 2 % 2 * 8)
                        s[at] = MASKED;
            }
            float shrink[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float higher = highest[half];
#pragma unroll
                for (int at = 0; at < 16; ++at)
                    higher = fmaxf(higher, s[at / 2 * 4 + 2 * half + at % 2]);
                higher = fmaxf(higher, __shfl_xor_sync(0xffffffff, higher, 1));
                higher = fmaxf(higher, __shfl_xor_sync(0xffffffff, higher, 2));
                shrink[half] = power2((highest[half] - higher) * scale);
                highest[half] = higher;
                const float shift = higher * scale;
                total[half] *= shrink[half];
#pragma unroll
                for (int at = 0; at < 16; ++at) {
                    float& score = s[at / 2 * 4 + 2 * half + at % 2];
                    score = power2(score * scale - shift);
                    total[half] += score;
                }
            }
            wait_for<0>(sum);
            hold(s);
            if (block > 0)
                ring.free(before);
#pragma unroll
            for (int at = 0; at < 32; ++at)
                sum[at] *= shrink[at / 2 % 2];
            narrow(p, s);
            if (DROPOUT) {
#pragma unroll
                for (int at = 0; at < 16; ++at)
                    p.step[at / 4][at % 4] &= permuted(kept[at % 2].word[at / 4], 0, at / 2 % 2 ? 0xBBAA : 0x9988);
            }
            before = ring.stage;
            values = ring.place() + CHUNK_BYTES;
            ring.next();
        };
        begin();
        // For the block that there is none before.
        commit();
        work(0);
        for (u32 block = 1; block < own.blocks; ++block) {
            begin();
            add_values();
            work(block);
        }
        fence_registers();
        add_values();
        wait_for<0>(sum);
        ring.free(before);
        float factor[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            total[half] += __shfl_xor_sync(0xffffffff, total[half], 1);
            total[half] += __shfl_xor_sync(0xffffffff, total[half], 2);
            factor[half] = bits(info.kept) / total[half];
            if (member == 0)
                lse[here.row(info) + query + 8 * half] = highest[half] * bits(info.scale) + logarithm2(total[half]) * LN2;
        }
        const u64 hidden = info.heads * DIMS;
        u16* to = o + token * hidden + here.head * DIMS;
        store(to, to + 8 * hidden, sum, factor[0], factor[1]);
    }
    for (u32 block = own.blocks; block < tile.blocks; ++block)
        ring.pass();
}
