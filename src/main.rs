/// Activations of some megabytes come and go in every operation on the CPU. The C library's allocator gives such blocks
/// back to the operating system each time, and the page faults took a quarter of a step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    trainer::cli::run()
}
