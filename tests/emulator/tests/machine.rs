//! Small kernels, written by hand, on the machine: divergence, barriers, shuffles, matrices, and every violation.

use cuda_emulator::half::{f16_to_f32, f32_to_f16};
use cuda_emulator::launch::{Launch, launch};
use cuda_emulator::lower::module;
use cuda_emulator::memory::Memory;

/// Runs `body` (parameter `%out`: a buffer of `words`) and returns the buffer.
fn run_with(body: &str, declarations: &str, threads: u32, words: Vec<u32>) -> Result<Vec<u32>, String> {
    let text = format!(
        ".version 8.8\n.target sm_80\n.address_size 64\n{declarations}
        .visible .entry k(.param .u64 k_0)\n{{
        .reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<40>; .reg .f32 %f<40>; .reg .b64 %rd<20>; .reg .b64 %out;
        ld.param.u64 %out, [k_0]; cvta.to.global.u64 %out, %out;
        mov.u32 %r0, %tid.x; mul.wide.u32 %rd0, %r0, 4; add.s64 %rd0, %out, %rd0;\n{body}\n}}"
    );
    let mut memory = Memory::new();
    let kernel = module(&text, &mut memory)?.remove(0);
    let buffer = memory.allocate(words.len() * 4).unwrap();
    // SAFETY: the allocation has that many bytes.
    unsafe { (buffer as *mut u32).copy_from_nonoverlapping(words.as_ptr(), words.len()) };
    let grid = Launch::new([1, 1, 1], [threads, 1, 1], 0, buffer.to_le_bytes().to_vec()).with_memory(memory.ranges());
    launch(&kernel, grid).map_err(|fault| fault.to_string())?;
    // SAFETY: as above.
    Ok(unsafe { std::slice::from_raw_parts(buffer as *const u32, words.len()) }.to_vec())
}

fn run(body: &str, threads: u32, words: usize) -> Result<Vec<u32>, String> {
    run_with(body, "", threads, vec![0; words])
}

#[test]
fn nested_branches_and_loops_of_differing_length() {
    // Sum of 0..tid, plus 100 in odd threads, plus 1000 in odd threads above 16.
    let body = "
        mov.u32 %r1, 0; mov.u32 %r2, 0;
    LOOP: setp.ge.u32 %p1, %r1, %r0; @%p1 bra DONE;
        add.u32 %r2, %r2, %r1; add.u32 %r1, %r1, 1; bra LOOP;
    DONE: and.b32 %r3, %r0, 1; setp.eq.u32 %p2, %r3, 0; @%p2 bra EVEN;
        add.u32 %r2, %r2, 100; setp.le.u32 %p3, %r0, 16; @%p3 bra EVEN;
        add.u32 %r2, %r2, 1000;
    EVEN: activemask.b32 %r4; st.global.u32 [%rd0], %r2;
        setp.eq.u32 %p4, %r4, 0xffffffff; @%p4 bra END; trap;
    END: ret;";
    let result = run(body, 64, 64).unwrap();
    for (tid, &value) in result.iter().enumerate() {
        let odd = tid % 2 * 100 + if tid % 2 == 1 && tid > 16 { 1000 } else { 0 };
        assert_eq!(value as usize, tid * tid.saturating_sub(1) / 2 + odd, "{tid}");
    }
}

const SWAP: &str = "
    mov.u64 %rd1, s; mul.wide.u32 %rd2, %r0, 4; add.s64 %rd2, %rd1, %rd2; st.shared.u32 [%rd2], %r0;
    BARRIER
    xor.b32 %r1, %r0, 224; mul.wide.u32 %rd3, %r1, 4; add.s64 %rd3, %rd1, %rd3; ld.shared.u32 %r2, [%rd3];
    st.global.u32 [%rd0], %r2; ret;";

#[test]
fn a_barrier_orders_shared_memory_and_a_missing_one_shows() {
    let shared = ".shared .align 4 .b8 s[1024];";
    let with = run_with(&SWAP.replace("BARRIER", "bar.sync 0;"), shared, 256, vec![0; 256]).unwrap();
    assert!(with.iter().enumerate().all(|(tid, &value)| value as usize == tid ^ 224));
    let without = run_with(&SWAP.replace("BARRIER", ""), shared, 256, vec![0; 256]).unwrap();
    assert!(without.contains(&u32::MAX), "some warp read the poison");
}

#[test]
fn barriers_in_divergent_code_are_faults() {
    let body = "setp.lt.u32 %p1, %r0, 16; @%p1 bra A; bar.sync 0; ret; A: bar.sync 0; ret;";
    let text = run(body, 32, 32).unwrap_err();
    assert!(text.contains("aligned barrier in divergent code"), "{text}");
    let body = "setp.lt.u32 %p1, %r0, 32; @%p1 bra A; bar.sync 0; ret; A: bar.sync 1; ret;";
    let text = run(body, 64, 64).unwrap_err();
    assert!(text.contains("deadlock"), "{text}");
}

#[test]
fn shuffles_votes_and_reductions() {
    let shuffle = |mode: &str, b: &str, c: &str| {
        let body = format!("shfl.sync.{mode}.b32 %r1|%p1, %r0, {b}, {c}, -1; st.global.u32 [%rd0], %r1; ret;");
        run(&body, 32, 32).unwrap()
    };
    let lanes = |f: fn(u32) -> u32| (0..32).map(f).collect::<Vec<_>>();
    assert_eq!(shuffle("bfly", "5", "31"), lanes(|lane| lane ^ 5));
    assert_eq!(shuffle("down", "3", "31"), lanes(|lane| if lane + 3 < 32 { lane + 3 } else { lane }));
    assert_eq!(shuffle("up", "3", "0"), lanes(|lane| if lane >= 3 { lane - 3 } else { lane }));
    assert_eq!(shuffle("idx", "2", "0x181f"), lanes(|lane| lane / 8 * 8 + 2), "segments of 8");
    let body = "setp.lt.u32 %p1, %r0, 5; vote.sync.ballot.b32 %r1, %p1, -1; redux.sync.add.u32 %r2, %r0, -1;
        add.u32 %r1, %r1, %r2; st.global.u32 [%rd0], %r1; ret;";
    assert_eq!(run(body, 32, 32).unwrap(), vec![31 + 496; 32]);
    let text =
        run("setp.lt.u32 %p1, %r0, 8; @%p1 ret; shfl.sync.idx.b32 %r1, %r0, 0, 31, -1; ret;", 32, 32).unwrap_err();
    assert!(text.contains("shfl reads lane 0"), "{text}");
}

#[test]
fn accesses_outside_or_misaligned_are_faults() {
    let text = run("st.global.u32 [%rd0+128], %r0; ret;", 32, 32).unwrap_err();
    assert!(text.contains("out of bounds") && text.contains("thread [0, 0, 0]") && text.contains("kernel k"), "{text}");
    let text = run("st.global.u32 [%rd0+2], %r0; ret;", 1, 32).unwrap_err();
    assert!(text.contains("misaligned"), "{text}");
    let text = run_with("ld.shared.u32 %r1, [s+16]; ret;", ".shared .align 4 .b8 s[16];", 1, vec![0]).unwrap_err();
    assert!(text.contains("Shared address 0x10"), "{text}");
    let text = run("frobnicate.u32 %r1, %r0; ret;", 1, 1).unwrap_err();
    assert!(text.contains("frobnicate.u32") && text.contains("line 10") && text.contains("kernel k"), "{text}");
}

#[test]
fn asynchronous_copies_happen_at_the_wait() {
    let body = |wait: &str| {
        format!(
            "mov.u64 %rd1, s; add.s64 %rd1, %rd1, 0; mul.wide.u32 %rd2, %r0, 16; add.s64 %rd1, %rd1, %rd2;
            add.s64 %rd3, %out, %rd2; cp.async.cg.shared.global [%rd1], [%rd3], 16, 8; cp.async.commit_group;
            {wait} ld.shared.v4.u32 {{%r1, %r2, %r3, %r4}}, [%rd1]; st.global.v4.u32 [%rd3], {{%r1, %r2, %r3, %r4}}; ret;"
        )
    };
    let run = |wait: &str| run_with(&body(wait), ".shared .align 16 .b8 s[64];", 4, (0..16).collect()).unwrap();
    assert_eq!(run("cp.async.wait_group 0;")[4..8], [4, 5, 0, 0]);
    assert_eq!(run("cp.async.wait_group 1;")[4..8], [u32::MAX; 4]);
}

/// d = a b + c for a 16 x 16 and b 16 x 8 of f16: fragments through ldmatrix (b's transposed), the result by the
/// documented layout of c.
#[test]
fn ldmatrix_and_mma_against_a_plain_product() {
    let a = |row: usize, k: usize| ((row * 7 + k * 3) % 11) as f32 - 5.0;
    let b = |k: usize, column: usize| ((k * 5 + column * 2) % 9) as f32 * 0.5 - 2.0;
    let half = |value: f32| u32::from(f32_to_f16(value));
    let mut words = vec![0u32; 320];
    for row in 0..16 {
        for k in (0..16).step_by(2) {
            words[(row * 16 + k) / 2] = half(a(row, k)) | half(a(row, k + 1)) << 16;
        }
        for column in (0..8).step_by(2) {
            words[128 + (row * 8 + column) / 2] = half(b(row, column)) | half(b(row, column + 1)) << 16;
        }
    }
    // a: lane's row = lane % 16, its half of the columns = lane / 16; b: row = lane % 16. d at word 192.
    let body = "
        mov.u64 %rd1, s; mul.wide.u32 %rd2, %r0, 4; add.s64 %rd3, %rd1, %rd2; mov.u32 %r1, 0;
    COPY: ld.global.u32 %r2, [%rd0]; st.shared.u32 [%rd3], %r2; add.s64 %rd0, %rd0, 128; add.s64 %rd3, %rd3, 128;
        add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 6; @%p1 bra COPY;
        bar.warp.sync -1;
        and.b32 %r3, %r0, 15; shr.u32 %r4, %r0, 4; mul.lo.u32 %r5, %r3, 32; mad.lo.u32 %r5, %r4, 16, %r5;
        cvt.u64.u32 %rd4, %r5; add.s64 %rd4, %rd1, %rd4;
        mul.lo.u32 %r6, %r3, 16; cvt.u64.u32 %rd5, %r6; add.s64 %rd5, %rd1, %rd5;
        ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r10, %r11, %r12, %r13}, [%rd4];
        ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%r14, %r15}, [%rd5+512];
        mov.f32 %f1, 0f3F800000;
        mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32
            {%f10, %f11, %f12, %f13}, {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%f1, %f1, %f1, %f1};
        shr.u32 %r20, %r0, 2; and.b32 %r21, %r0, 3; mul.lo.u32 %r22, %r20, 32; mad.lo.u32 %r22, %r21, 8, %r22;
        cvt.u64.u32 %rd6, %r22; add.s64 %rd6, %out, %rd6;
        st.global.v2.f32 [%rd6+768], {%f10, %f11}; st.global.v2.f32 [%rd6+1024], {%f12, %f13}; ret;";
    let result = run_with(body, ".shared .align 16 .b8 s[768];", 32, words).unwrap();
    for row in 0..16 {
        for column in 0..8 {
            let expected = 1.0 + (0..16).map(|k| a(row, k) * b(k, column)).sum::<f32>();
            assert_eq!(f32::from_bits(result[192 + row * 8 + column]), expected, "{row} {column}");
        }
    }
}

/// wmma with column-major a in memory, and an f16 accumulator stored by columns.
#[test]
fn wmma_against_a_plain_product() {
    let value = |row: usize, column: usize| ((row * 3 + column * 5) % 7) as f32 - 3.0;
    let half = |value: f32| u32::from(f32_to_f16(value));
    let words: Vec<u32> = (0..384)
        .map(|at| half(value(at / 8 % 16, at % 8 * 2)) | half(value(at / 8 % 16, at % 8 * 2 + 1)) << 16)
        .collect();
    let regs = |first: usize, count: usize| {
        let names: Vec<String> = (first..first + count).map(|at| format!("%r{at}")).collect();
        format!("{{{}}}", names.join(", "))
    };
    let (a, b, d) = (regs(1, 8), regs(9, 8), regs(17, 4));
    let body = format!(
        "mov.u32 %r30, 16; mov.u32 %r17, 0; mov.u32 %r18, 0; mov.u32 %r19, 0; mov.u32 %r20, 0;
        wmma.load.a.sync.aligned.col.m16n16k16.global.f16 {a}, [%out], %r30;
        wmma.load.b.sync.aligned.row.m16n16k16.f16 {b}, [%out+512], %r30;
        wmma.mma.sync.aligned.col.row.m16n16k16.f16.f16 {d}, {a}, {b}, {d};
        wmma.store.d.sync.aligned.col.m16n16k16.global.f16 [%out+1024], {d}, %r30; ret;"
    );
    let result = run_with(&body, "", 32, words).unwrap();
    for row in 0..16 {
        for column in 0..16 {
            let expected: f32 = (0..16).map(|k| value(k, row) * value(k, column)).sum();
            let at = column * 16 + row;
            let word = result[256 + at / 2] >> (16 * (at % 2));
            assert_eq!(f16_to_f32(word as u16), expected, "{row} {column}");
        }
    }
}
