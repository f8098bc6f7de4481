/// Activations of some megabytes come and go in every operation on the CPU. The C library's allocator gives such blocks
/// back to the operating system each time, and the page faults took a quarter of a step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h, in its versions 2 and 3; libmimalloc-sys has no name for it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Milliseconds that freed memory waits to be used again. At mimalloc's 10, a token's logits are new pages every time.
const LONGER_THAN_A_STEP: i64 = 1000;

fn main() {
    // SAFETY: sets a number that the allocator reads, which the documentation allows at any time; a default, so that
    // MIMALLOC_PURGE_DELAY still decides.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, LONGER_THAN_A_STEP as _) };
    trainer::exit::after_work(trainer::cli::run())
}
