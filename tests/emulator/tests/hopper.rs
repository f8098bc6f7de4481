//! What compute capability 9.0 adds, by hand: mbarriers, tensor copies, products of a warpgroup, and what is wrong with
//! them.

use cuda_emulator::half::f32_to_f16;
use cuda_emulator::launch::{Launch, launch};
use cuda_emulator::lower::module;
use cuda_emulator::memory::Memory;
use cuda_emulator::tensor_map::{Arguments, TensorMap};

/// Runs `body` with `%out`, a buffer of `words`, and `%map`, a map of it; returns the buffer. Shared memory is `s`.
fn run(body: &str, threads: u32, words: Vec<u32>, map: fn(u64) -> TensorMap, seed: u64) -> Result<Vec<u32>, String> {
    run_blocks(1, body, threads, words, map, seed)
}

/// As `run`, by one cluster of `blocks`.
fn run_blocks(
    blocks: u32,
    body: &str,
    threads: u32,
    words: Vec<u32>,
    map: fn(u64) -> TensorMap,
    seed: u64,
) -> Result<Vec<u32>, String> {
    let text = format!(
        ".version 8.8\n.target sm_90a\n.address_size 64\n.extern .shared .align 1024 .b8 s[];
        .visible .entry k(.param .align 64 .b8 k_0[128], .param .u64 k_1) .reqnctapercluster {blocks}, 1, 1\n{{
        .reg .pred %p<9>; .reg .b32 %r<40>; .reg .f32 %f<200>; .reg .b64 %rd<20>; .reg .b64 %out; .reg .b64 %map; .reg .b16 %h<2>;
        ld.param.u64 %out, [k_1]; cvta.to.global.u64 %out, %out; mov.b64 %map, k_0; cvta.param.u64 %map, %map;
        mov.u32 %r0, %tid.x; mul.wide.u32 %rd0, %r0, 4; add.s64 %rd0, %out, %rd0;\n{body}\n}}"
    );
    let mut memory = Memory::new();
    let kernel = module(&text, &mut memory)?.remove(0);
    let buffer = memory.allocate(words.len() * 4).unwrap();
    // SAFETY: the allocation has that many bytes.
    unsafe { (buffer as *mut u32).copy_from_nonoverlapping(words.as_ptr(), words.len()) };
    let mut parameters: Vec<u8> = map(buffer).to_words().iter().flat_map(|word| word.to_le_bytes()).collect();
    parameters.extend(buffer.to_le_bytes());
    let mut grid = Launch::new([blocks, 1, 1], [threads, 1, 1], SHARED, parameters).with_memory(memory.ranges());
    grid.seed = seed;
    launch(&kernel, grid).map_err(|fault| fault.to_string())?;
    // SAFETY: as above.
    Ok(unsafe { std::slice::from_raw_parts(buffer as *const u32, words.len()) }.to_vec())
}

const SHARED: usize = 40 << 10;
const SEEDS: std::ops::Range<u64> = 0..20;

/// 7 rows of 100 elements of 16 bits, 208 bytes apart; boxes of 8 rows of 64.
fn map(address: u64) -> TensorMap {
    let arguments = Arguments {
        kind: 1,
        address,
        dims: vec![100, 7],
        strides: vec![208],
        box_dims: vec![64, 8],
        element_strides: vec![1, 1],
        interleave: 0,
        swizzle: 3,
        fill: 0,
    };
    arguments.map().unwrap()
}

/// 64 threads hand a word to the other warp; the first lane of each warp arrives for it. Twice, so that both parities
/// count.
const HAND_OVER: &str = "
    mov.u64 %rd1, s; mul.wide.u32 %rd2, %r0, 4; add.s64 %rd2, %rd1, %rd2; xor.b32 %r1, %r0, 32;
    mul.wide.u32 %rd3, %r1, 4; add.s64 %rd3, %rd1, %rd3; and.b32 %r2, %r0, 31; mov.u32 %r5, 0; mov.u32 %r9, 0;
    setp.ne.u32 %p1, %r0, 0; @%p1 bra READY; mbarrier.init.shared.b64 [s+1024], COUNT;
READY: bar.sync 0;
AGAIN: add.u32 %r3, %r0, %r5; bar.sync 0; st.shared.u32 [%rd2], %r3; bar.warp.sync -1;
    setp.ne.u32 %p2, %r2, 0; @%p2 bra WAIT; mbarrier.arrive.shared.b64 %rd9, [s+1024];
WAIT: LOOP
    ld.shared.u32 %r4, [%rd3]; add.u32 %r9, %r9, %r4; add.u32 %r5, %r5, 1; setp.lt.u32 %p4, %r5, 2; @%p4 bra AGAIN;
    st.global.u32 [%rd0], %r9; ret;";
const LOOP: &str = "mbarrier.try_wait.parity.shared.b64 %p3, [s+1024], %r5; @!%p3 bra WAIT;";

#[test]
fn an_mbarrier_orders_shared_memory_and_a_missing_wait_shows() {
    let expected: Vec<u32> = (0..64).map(|tid| 2 * (tid ^ 32) + 1).collect();
    let waits = HAND_OVER.replace("LOOP", LOOP).replace("COUNT", "2");
    let hasty = HAND_OVER.replace("LOOP", "").replace("COUNT", "2");
    let mut differ = 0;
    for seed in SEEDS {
        assert_eq!(run(&waits, 64, vec![0; 400], map, seed).unwrap()[..64], expected, "{seed}");
        differ +=
            usize::from(run(&hasty, 64, vec![0; 400], map, seed).map(|words| words[..64] != expected) != Ok(false));
    }
    assert!(differ > 0, "the missing wait never showed");
}

#[test]
fn wrong_uses_of_mbarriers_are_faults() {
    let fault = |body: &str| run(body, 64, vec![0; 400], map, 1).map(drop).unwrap_err();
    let text = fault(&HAND_OVER.replace("LOOP", LOOP).replace("COUNT", "3"));
    assert!(text.contains("deadlock") && text.contains("mbarrier"), "{text}");
    let text = fault(&HAND_OVER.replace("LOOP", LOOP).replace("COUNT", "1"));
    assert!(text.contains("1 arrivals at an mbarrier that waits for") || text.contains("deadlock"), "{text}");
    let text = fault("mbarrier.arrive.shared.b64 _, [s]; ret;");
    assert!(text.contains("not initialised"), "{text}");
}

/// 64 threads copy 16 bytes each, an mbarrier hears of every copy, and the other warp reads them.
const ANNOUNCED: &str = "
    mov.u64 %rd1, s; mul.wide.u32 %rd2, %r0, 16; add.s64 %rd3, %out, %rd2; add.s64 %rd4, %rd1, %rd2;
    xor.b32 %r1, %r0, 32; mul.wide.u32 %rd5, %r1, 16; add.s64 %rd5, %rd1, %rd5;
    setp.ne.u32 %p1, %r0, 0; @%p1 bra READY; mbarrier.init.shared.b64 [s+1024], 64;
READY: bar.sync 0;
    cp.async.cg.shared.global [%rd4], [%rd3], 16; cp.async.mbarrier.arrive.NOINC [s+1024]; ARRIVE
WAIT: LOOP
    ld.shared.u32 %r4, [%rd5]; bar.sync 0; st.global.u32 [%rd0], %r4; ret;";

#[test]
fn an_mbarrier_hears_of_asynchronous_copies() {
    let expected: Vec<u32> = (0..64).map(|tid| 4 * (tid ^ 32)).collect();
    // Without .noinc the copy's arrival is one more than the 64.
    let bodies = [("noinc.shared.b64", ""), ("shared::cta.b64", "mbarrier.arrive.shared.b64 %rd9, [s+1024];")];
    for (noinc, arrive) in bodies {
        let body = ANNOUNCED.replace("NOINC", noinc).replace("ARRIVE", arrive);
        let waits = body.replace("LOOP", &LOOP.replace("%r5", "0"));
        let words = || (0..400).collect();
        let mut differ = 0;
        for seed in SEEDS {
            assert_eq!(run(&waits, 64, words(), map, seed).unwrap()[..64], expected, "{noinc} {seed}");
            let hasty = run(&body.replace("LOOP", ""), 64, words(), map, seed);
            differ += usize::from(hasty.map(|words| words[..64] != expected) != Ok(false));
        }
        assert!(differ > 0, "the missing wait never showed");
    }
    let alone =
        ANNOUNCED.replace("NOINC", "shared.b64").replace("ARRIVE", "").replace("LOOP", &LOOP.replace("%r5", "0"));
    let text = run(&alone, 64, (0..400).collect(), map, 1).unwrap_err();
    assert!(text.contains("deadlock") && text.contains("lacks 64 arrivals and 0 bytes"), "{text}");
}

const FETCH: &str = "
    setp.ne.u32 %p1, %r0, 0; @%p1 bra READY;
    mbarrier.init.shared.b64 [s+2048], 1; mbarrier.arrive.expect_tx.shared.b64 _, [s+2048], 1024;
    mov.u32 %r1, s; add.u32 %r2, %r1, 2048; mov.u32 %r3, 50; mov.u32 %r4, 2;
    cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r1], [%map, {%r3, %r4}], [%r2];
READY: bar.warp.sync -1;
WAIT: LOOP
    mov.u64 %rd1, s; mul.wide.u32 %rd2, %r0, 4; add.s64 %rd1, %rd1, %rd2; mov.u32 %r6, 0;
COPY: ld.shared.u32 %r5, [%rd1]; st.global.u32 [%rd0+1456], %r5; add.s64 %rd1, %rd1, 128; add.s64 %rd0, %rd0, 128;
    add.u32 %r6, %r6, 1; setp.lt.u32 %p4, %r6, 8; @%p4 bra COPY; ret;";
const LANDED: &str = "mbarrier.try_wait.parity.shared.b64 %p3, [s+2048], 0; @!%p3 bra WAIT;";

/// The box at column 50, row 2: it leaves the tensor on two sides. Row r of the box has its chunk c of 8 elements at c
/// xor r.
#[test]
fn a_tensor_copy_is_swizzled_cut_and_waited_for() {
    let words: Vec<u32> = (0..620).map(|at| (at * 2) | ((at * 2 + 1) << 16)).collect();
    let mut hasty_differs = 0;
    let place = |row: usize, column: usize| 728 + row * 64 + ((column / 8) ^ row) * 8 + column % 8;
    for seed in SEEDS {
        let read = |result: &[u32], at: usize| result[at / 2] >> (16 * (at % 2)) & 0xffff;
        let result = run(&FETCH.replace("LOOP", LANDED), 32, words.clone(), map, seed).unwrap();
        for row in 0..8 {
            for column in 0..64 {
                let inside = 50 + column < 100 && 2 + row < 7;
                let expected = if inside { ((2 + row) * 104 + 50 + column) as u32 } else { 0 };
                assert_eq!(read(&result, place(row, column)), expected, "seed {seed} row {row} column {column}");
            }
        }
        let hasty = run(&FETCH.replace("LOOP", ""), 32, words.clone(), map, seed);
        hasty_differs += usize::from(hasty != Ok(result));
    }
    assert!(hasty_differs > 0, "the missing wait never showed");
    let text = run(&FETCH.replace("LOOP", LANDED).replace("[%map,", "[%out,"), 32, words.clone(), map, 0)
        .map(drop)
        .unwrap_err();
    assert!(text.contains("no tensor map"), "{text}");
    let text =
        run(&FETCH.replace("LOOP", LANDED).replace("%r1, s;", "%r1, s+64;"), 32, words, map, 0).map(drop).unwrap_err();
    assert!(text.contains("misaligned"), "{text}");
}

/// Block 0 fetches a box for both blocks; every lane tells the other block that it has waited for it.
const SHARE: &str = "
    mov.u32 %r20, %cluster_ctarank; mov.u32 %r1, s; add.u32 %r2, %r1, 2048; add.u32 %r7, %r1, 2056;
    setp.ne.u32 %p1, %r0, 0; @%p1 bra READY; mbarrier.init.shared.b64 [%r7], 32;
    mbarrier.init.shared.b64 [%r2], 1; mbarrier.arrive.expect_tx.shared.b64 _, [%r2], 1024;
READY: SYNC
    or.b32 %r8, %r0, %r20; setp.ne.u32 %p2, %r8, 0; @%p2 bra WAIT;
    mov.u32 %r3, 50; mov.u32 %r4, 2; mov.u16 %h1, MASK;
    cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster
        [%r1], [%map, {%r3, %r4}], [%r2], %h1;
WAIT: mbarrier.try_wait.parity.shared.b64 %p3, [%r2], 0; @!%p3 bra WAIT;
    xor.b32 %r9, %r20, 1; mapa.shared::cluster.u32 %r10, %r7, %r9;
    mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r10];
TOLD: mbarrier.try_wait.parity.shared.b64 %p5, [%r7], 0; @!%p5 bra TOLD;
    mov.u64 %rd1, s; mul.wide.u32 %rd2, %r0, 4; add.s64 %rd1, %rd1, %rd2; mov.u32 %r6, 0;
    mul.wide.u32 %rd5, %r20, 1024; add.s64 %rd0, %rd0, %rd5;
COPY: ld.shared.u32 %r5, [%rd1]; st.global.u32 [%rd0+1456], %r5; add.s64 %rd1, %rd1, 128; add.s64 %rd0, %rd0, 128;
    add.u32 %r6, %r6, 1; setp.lt.u32 %p4, %r6, 8; @%p4 bra COPY;
    barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned; ret;";
const TOLD: &str = "TOLD: mbarrier.try_wait.parity.shared.b64 %p5, [%r7], 0; @!%p5 bra TOLD;";
const MEET: &str = "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;";

#[test]
fn a_cluster_shares_copies_and_barriers() {
    let words: Vec<u32> = (0..876).map(|at| (at * 2) | ((at * 2 + 1) << 16)).collect();
    let alone = run(&FETCH.replace("LOOP", LANDED), 32, words.clone(), map, 0).unwrap();
    let kernel = SHARE.replace("SYNC", MEET);
    let mut hasty_fails = 0;
    for seed in SEEDS {
        let result = run_blocks(2, &kernel.replace("MASK", "3"), 32, words.clone(), map, seed).unwrap();
        assert_eq!(result[364..620], alone[364..620], "seed {seed}");
        assert_eq!(result[620..], alone[364..620], "seed {seed}");
        let hasty = SHARE.replace("SYNC", "bar.sync 0;").replace("MASK", "3");
        hasty_fails += usize::from(run_blocks(2, &hasty, 32, words.clone(), map, seed).is_err());
    }
    assert!(hasty_fails > 0, "the other block's barrier was always there");
    // A block that goes as soon as it has its own copy may be gone when the other wants to tell it something.
    let end = SHARE.rfind("barrier.cluster.arrive").unwrap();
    let leaves = format!("{} ret;", &SHARE[..end]).replace("SYNC", MEET).replace("MASK", "3").replace(TOLD, "");
    let leave = |seed| run_blocks(2, &leaves, 32, words.clone(), map, seed).map(drop);
    assert!(SEEDS.filter_map(|seed| leave(seed).err()).any(|text| text.contains("which has ended")));
    let text = run_blocks(2, &kernel.replace("MASK", "5"), 32, words.clone(), map, 0).map(drop).unwrap_err();
    assert!(text.contains("a cluster of 2"), "{text}");
    let text = run_blocks(2, &kernel.replace("MASK", "1"), 32, words, map, 0).map(drop).unwrap_err();
    assert!(text.contains("deadlock"), "{text}");
}

const N: usize = 128;
/// Bytes of a's 64 x 64 tile; b's follows.
const A_BYTES: usize = 64 * 128;

fn a(m: usize, k: usize) -> f32 {
    ((m * 7 + k * 3) % 11) as f32 - 5.0
}

fn b(n: usize, k: usize) -> f32 {
    ((n * 5 + k * 2) % 9) as f32 * 0.5 - 2.0
}

/// Where an element of two bytes is, drawn from the figures of PTX ISA, "Shared Memory Matrix Layout": rows of 128
/// bytes, eight to a pattern, the chunk of 16 bytes in column c of row r standing at c xor r.
fn line(row: usize, column: usize) -> usize {
    row * 128 + ((column / 8) ^ (row % 8)) * 16 + column % 8 * 2
}

/// Both tiles, 64 deep, in the swizzled layouts, as words.
fn image(mn_major: [bool; 2]) -> Vec<u32> {
    let mut bytes = vec![0u8; A_BYTES + N * 128];
    let mut put = |at: usize, value: f32| bytes[at..at + 2].copy_from_slice(&f32_to_f16(value).to_le_bytes());
    for k in 0..64 {
        for m in 0..64 {
            put(if mn_major[0] { line(k, m) } else { line(m, k) }, a(m, k));
        }
        for n in 0..N {
            // Chunks of 64 columns follow one another.
            let at = if mn_major[1] { n / 64 * A_BYTES + line(k, n % 64) } else { line(n, k) };
            put(A_BYTES + at, b(n, k));
        }
    }
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

fn sums() -> String {
    (0..N / 2).map(|at| format!("%f{at}")).collect::<Vec<_>>().join(", ")
}

/// 128 threads copy the image to shared memory, do `product` and write their sums behind it.
fn kernel(words: usize, product: &str) -> String {
    let stores: Vec<String> =
        (0..N / 2).map(|at| format!("st.global.f32 [%rd3+{}], %f{at};", words * 4 + at * 4)).collect();
    format!(
        "mov.u64 %rd1, s; mul.wide.u32 %rd2, %r0, 4; add.s64 %rd1, %rd1, %rd2; mul.wide.u32 %rd3, %r0, {};
        add.s64 %rd3, %out, %rd3; mov.u32 %r1, 0;
    COPY: ld.global.u32 %r2, [%rd0]; st.shared.u32 [%rd1], %r2; add.s64 %rd0, %rd0, 512; add.s64 %rd1, %rd1, 512;
        add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, {}; @%p1 bra COPY;
        fence.proxy.async; bar.sync 0; mov.u64 %rd1, s; setp.ne.u32 %p2, %r0, %r0; setp.eq.u32 %p3, %r0, %r0;
        {product}
        {} ret;",
        N / 2 * 4,
        words / 128,
        stores.join(" ")
    )
}

fn descriptor(address: usize, leading: usize, stride: usize, swizzle: u64) -> u64 {
    (address >> 4) as u64 | ((leading >> 4) as u64) << 16 | ((stride >> 4) as u64) << 32 | swizzle << 62
}

fn multiply(descriptors: [u64; 2], adds: &str, mn_major: [bool; 2]) -> String {
    let [left, right] = mn_major.map(u8::from);
    format!(
        "mov.u64 %rd5, {}; mov.u64 %rd6, {};
        wgmma.mma_async.sync.aligned.m64n{N}k16.f32.f16.f16 {{{}}}, %rd5, %rd6, {adds}, 1, 1, {left}, {right};",
        descriptors[0],
        descriptors[1],
        sums()
    )
}

/// Sum `at` of a thread: warp w of four has 16 rows, lane l of them l / 4 and l / 4 + 8, and of every 8 columns 2 (l %
/// 4) and the next (PTX ISA, the figure of D of m64nNk16).
fn check(result: &[u32], words: usize, expected: impl Fn(usize, usize) -> f32) {
    for thread in 0..128 {
        for at in 0..N / 2 {
            let row = thread / 32 * 16 + thread % 32 / 4 + at / 2 % 2 * 8;
            let column = at / 4 * 8 + thread % 4 * 2 + at % 2;
            let found = f32::from_bits(result[words + thread * (N / 2) + at]);
            assert_eq!(found, expected(row, column), "row {row} column {column}");
        }
    }
}

fn run_product(words: Vec<u32>, product: &str) -> Result<Vec<u32>, String> {
    let count = words.len();
    let mut buffer = words;
    buffer.resize(count + 128 * N / 2, 0);
    run(&kernel(count, product), 128, buffer, map, 3)
}

const FENCE: &str = "wgmma.fence.sync.aligned;";
const WAIT: &str = "wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;";

/// The second and third steps of 16 in tiles of 64: 32 bytes further along the rows, or 16 rows further down.
#[test]
fn products_of_swizzled_tiles_in_all_orders() {
    for mn_major in [[false, false], [false, true], [true, true], [true, false]] {
        let words = image(mn_major);
        let step = |at: usize| {
            let [left, right] = mn_major.map(|mn| if mn { at * 16 * 128 } else { at * 32 });
            [descriptor(left, A_BYTES, 1024, 1), descriptor(A_BYTES + right, A_BYTES, 1024, 1)]
        };
        let product =
            format!("{FENCE} {} {} {WAIT}", multiply(step(1), "%p2", mn_major), multiply(step(2), "%p3", mn_major));
        let result = run_product(words.clone(), &product).unwrap();
        check(&result, words.len(), |m, n| (16..48).map(|k| a(m, k) * b(n, k)).sum());
    }
}

/// Without a swizzle, both k-major: 8 rows of 16 bytes are 128 contiguous ones; the next 8 of k 128 further, the next 8
/// rows 256.
#[test]
fn a_product_without_a_swizzle() {
    let mut bytes = vec![0u8; A_BYTES + N * 128];
    let place = |row: usize, k: usize| row / 8 * 256 + k / 8 * 128 + row % 8 * 16 + k % 8 * 2;
    for k in 0..16 {
        for row in 0..N {
            bytes[A_BYTES + place(row, k)..][..2].copy_from_slice(&f32_to_f16(b(row, k)).to_le_bytes());
        }
        for row in 0..64 {
            bytes[place(row, k)..][..2].copy_from_slice(&f32_to_f16(a(row, k)).to_le_bytes());
        }
    }
    let words: Vec<u32> = bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    let descriptors = [descriptor(0, 128, 256, 0), descriptor(A_BYTES, 128, 256, 0)];
    let product = format!("{FENCE} {} {WAIT}", multiply(descriptors, "%p2", [false, false]));
    let result = run_product(words.clone(), &product).unwrap();
    check(&result, words.len(), |m, n| (0..16).map(|k| a(m, k) * b(n, k)).sum());
}

#[test]
fn what_is_wrong_with_products() {
    let words = image([false, false]);
    let descriptors = [descriptor(0, 0, 1024, 1), descriptor(A_BYTES, 0, 1024, 1)];
    let product = multiply(descriptors, "%p2", [false, false]);
    let text = run_product(words.clone(), &format!("{product} {WAIT}")).map(drop).unwrap_err();
    assert!(text.contains("wgmma.fence"), "{text}");
    // Sums that are read before the wait are not there.
    let late =
        format!("{FENCE} {product} wgmma.commit_group.sync.aligned; mov.f32 %f100, %f0; {WAIT} mov.f32 %f0, %f100;");
    let result = run_product(words.clone(), &late).unwrap();
    assert!(f32::from_bits(result[words.len()]).is_nan());
    let overwritten = format!("{FENCE} {product} st.shared.u32 [%rd1+4], %r0; {WAIT}");
    let text = run_product(words.clone(), &overwritten).map(drop).unwrap_err();
    assert!(text.contains("overwritten before wgmma.wait_group"), "{text}");
    let alone = format!("setp.gt.u32 %p5, %r0, 31; @%p5 bra PAST; {FENCE} {product} {WAIT} PAST: bar.sync 0;");
    let text = run_product(words.clone(), &alone).map(drop).unwrap_err();
    assert!(text.contains("different products"), "{text}");
    let text = run_product(words, &format!("{FENCE} {product}")).map(drop).unwrap_err();
    assert!(text.contains("has not waited for"), "{text}");
}
