#!/bin/sh
# Installs what a build, the demo or the tests need and this machine lacks.
# Usage: setup.sh build | setup.sh demo | setup.sh test [WHEELS_DIR] | setup.sh wheels [WHEELS_DIR] | setup.sh features
# `wheels` gets NVIDIA's compilers alone, which `test` gets too [target/cuda-wheels].
# `features` prints the cargo options for what this machine can build beside the default features: MPI.
#
# Only Debian's and Ubuntu's packages are installed, only where something is missing, and only as root or through sudo
# without a password; anybody else is told the command. What tests can do without is left out with a line that says so:
# they then skip visibly.
set -u

# rustup's folder is not on every shell's path. Behind the rest, as in the Makefile, so that both find the same cargo.
[ -n "${HOME:-}" ] && PATH="$PATH:$HOME/.cargo/bin"

have() { command -v "$1" >/dev/null 2>&1; }

root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Whether `root` works, without asking for a password.
can_be_root() {
    [ "$(id -u)" = 0 ] || { have sudo && sudo -n true 2>/dev/null; }
}

by_hand() { # by_hand PACKAGE... ; the command that the user would type
    if [ "$(id -u)" = 0 ]; then echo "apt-get install $*"; else echo "sudo apt-get install $*"; fi
}

apt() { # apt ARGUMENT... ; quiet, but for its last lines if it fails
    log=$(mktemp) || return 1
    root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 "$@" >"$log" 2>&1 </dev/null
    status=$?
    [ $status = 0 ] || tail -n 5 "$log" | sed 's/^/  apt-get: /' >&2
    rm -f "$log"
    return $status
}

can_install() {
    have apt-get && can_be_root
}

updated=no
update() {
    [ "$updated" = no ] || return 0
    updated=yes
    # One source that does not answer is no reason to stop: the others' lists, or old ones, may do.
    apt update || echo "note: apt-get update failed: going on with the package lists that are here" >&2
}

install() { # install PACKAGE...
    can_install || return 1
    update
    echo "installing $*"
    apt install -y --no-install-recommends "$@"
}

# Whether apt-get knows the package. Ubuntu has Chromium as a snap only.
offered() {
    can_install || return 1
    update
    LC_ALL=C apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [^(]'
}

# The least Rust is Cargo.toml's rust-version.
check_rust() {
    have cargo || {
        echo "error: Rust is missing: install rustup (https://rustup.rs), then run make again" >&2
        exit 1
    }
    said=$(cargo --version 2>&1) || {
        echo "error: cargo does not run: $said" >&2
        echo "with rustup: rustup default stable" >&2
        exit 1
    }
    needed=$(sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' "$(dirname "$0")/../Cargo.toml" | head -n 1)
    found=$(echo "$said" | sed -n 's/^cargo \([0-9][0-9.]*\).*/\1/p')
    echo "$found $needed" | awk '{ split($1, found, "."); split($2, needed, ".")
        exit !(found[1] > needed[1] || found[1] == needed[1] && found[2] + 0 >= needed[2] + 0) }' || {
        echo "error: found Rust ${found:-of no known version} ($(command -v cargo)), but $needed or newer is needed:" \
            "rustup update (rustup is at https://rustup.rs)" >&2
        exit 1
    }
}

# gcc alone does not bring the C library's files, and nothing links without them.
cc_links() {
    have cc || return 1
    folder=$(mktemp -d) || return 1
    printf '#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n' >"$folder/empty.c"
    cc -o "$folder/empty" "$folder/empty.c" >/dev/null 2>&1
    status=$?
    rm -rf "$folder"
    return $status
}

build() {
    check_rust
    cc_links || { install gcc libc6-dev && cc_links; } || {
        echo "error: no C compiler that links a program (some crates compile C code); install it:" \
            "$(by_hand gcc libc6-dev)" >&2
        exit 1
    }
}

demo() {
    have python3 || install python3 ||
        echo "note: no python3 ($(by_hand python3)): the demo shows what it wrote without running it"
}

vulkan_driver() {
    for dir in /usr/share/vulkan/icd.d /etc/vulkan/icd.d /usr/local/share/vulkan/icd.d; do
        ls "$dir"/*.json >/dev/null 2>&1 && return 0
    done
    return 1
}

# OpenMPI's compiler wrapper, and libclang for the bindings.
can_build_mpi() {
    have mpicc && { ldconfig -p 2>/dev/null | grep -q 'libclang[-.0-9]*\.so' ||
        ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* "${LIBCLANG_PATH:-/nowhere}"/libclang*.so* 2>/dev/null |
            grep -qv libclang-cpp; }
}

features() {
    can_build_mpi && echo "--features mpi"
    return 0
}

# NVRTC, the headers, and ptxas: a download that was stopped leaves a part of them.
wheels_there() {
    ls "$1"/nvidia/cuda_nvrtc/lib/libnvrtc.so* >/dev/null 2>&1 && [ -f "$1/nvidia/cuda_runtime/include/cuda_fp16.h" ] &&
        [ -d "$1/nvidia/cuda_cccl/include" ] && [ -d "$1/nvidia/cuda_nvcc/include/crt" ] &&
        [ -x "$1/nvidia/cuda_nvcc/bin/ptxas" ]
}

wheels() { # wheels FOLDER
    wheels_there "$1" && return 0
    python3 -m pip --version >/dev/null 2>&1 || install python3-pip
    if ! python3 -m pip --version >/dev/null 2>&1; then
        echo "note: no pip ($(by_hand python3-pip), needs network): the tests of the CUDA kernels will be skipped"
        return 1
    fi
    echo "installing NVIDIA's compilers for tests (NVRTC, ptxas) in $1"
    # --upgrade: pip leaves a folder as it is that is there in part.
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install -q --upgrade --target "$1" \
        nvidia-cuda-nvrtc-cu12==12.9.86 nvidia-cuda-runtime-cu12==12.9.79 nvidia-cuda-cccl-cu12==12.9.27 \
        nvidia-cuda-nvcc-cu12==12.9.86 && wheels_there "$1" || {
        echo "note: no NVRTC wheels (they need network): the tests of the CUDA kernels will be skipped"
        return 1
    }
}

test_needs() { # test_needs WHEELS_DIR
    if ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
        { have rustup && rustup component add rustfmt clippy; } ||
            echo "note: no rustfmt or clippy (rustup component add rustfmt clippy): make test begins with them"
    fi
    [ "$(uname)" = Linux ] || return 0
    vulkan_driver || install mesa-vulkan-drivers ||
        echo "note: no Vulkan driver ($(by_hand mesa-vulkan-drivers)): the tests on wgpu will be skipped"
    { can_build_mpi && have mpirun; } || install libopenmpi-dev openmpi-bin libclang-dev ||
        echo "note: no OpenMPI ($(by_hand libopenmpi-dev openmpi-bin libclang-dev)): the tests under mpirun are left out"
    { have chromium || have chromium-browser || have google-chrome || have google-chrome-stable; } ||
        { offered chromium && install chromium; } ||
        echo "note: no browser (install Chrome or Chromium): the test of the report in a browser will be skipped"
    have python3 || install python3 ||
        echo "note: no python3 ($(by_hand python3)): the tests that run Python programs will be skipped"
    wheels "$1" || return 0
}

case "${1:-}" in
build) build ;;
demo) demo ;;
test) test_needs "${2:-target/cuda-wheels}" ;;
wheels) wheels "${2:-target/cuda-wheels}" ;;
features) features ;;
*)
    echo "usage: setup.sh build | demo | test [WHEELS_DIR] | wheels [WHEELS_DIR] | features" >&2
    exit 2
    ;;
esac
