#!/bin/sh
# Installs what a build, the demo or the tests need and this machine lacks.
# Usage: setup.sh build | setup.sh demo | setup.sh test WHEELS_DIR | setup.sh features
# `features` prints the cargo options for what this machine can build beside the default features: MPI.
#
# Only Debian's and Ubuntu's packages are installed, only where something is missing, and only as root or through sudo
# without a password. What tests can do without is left out with a line that says so: they then skip visibly.
set -u

have() { command -v "$1" >/dev/null 2>&1; }

root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif have sudo; then sudo -n "$@"; else return 1; fi
}

updated=no
install() { # install PACKAGE... ; quiet unless it fails
    have apt-get || return 1
    if [ "$updated" = no ]; then
        root apt-get update -qq >/dev/null 2>&1 || return 1
        updated=yes
    fi
    echo "installing $*"
    root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1
}

build() {
    [ -d "$HOME/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
    have cargo || {
        echo "error: Rust is missing: install rustup (https://rustup.rs), then run make again" >&2
        exit 1
    }
    # gcc alone does not bring the C library's headers, and nothing links without them.
    have cc || install gcc libc6-dev || {
        echo "error: cc is missing (some crates compile C code); install it: apt-get install gcc libc6-dev" >&2
        exit 1
    }
}

demo() {
    have python3 || install python3 ||
        echo "note: no python3 (apt-get install python3): the demo shows what it wrote without running it"
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

test_needs() {
    wheels=$1
    if have rustup; then
        have rustfmt && have cargo-clippy && cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 ||
            rustup component add rustfmt clippy
    fi
    if [ "$(uname)" = Linux ]; then
        vulkan_driver || install mesa-vulkan-drivers ||
            echo "note: no Vulkan driver (apt-get install mesa-vulkan-drivers): the tests on wgpu will be skipped"
        { can_build_mpi && have mpirun; } || install libopenmpi-dev openmpi-bin libclang-dev ||
            echo "note: no OpenMPI (apt-get install libopenmpi-dev openmpi-bin libclang-dev): the tests of several ranks are left out"
        { have chromium || have chromium-browser || have google-chrome; } || install chromium ||
            echo "note: no Chromium (apt-get install chromium): the test of the report in a browser will be skipped"
        have python3 || install python3 ||
            echo "note: no python3: the tests that run Python programs will be skipped"
        if [ ! -d "$wheels/nvidia/cuda_nvrtc" ]; then
            python3 -m pip --version >/dev/null 2>&1 || install python3-pip
            echo "installing NVIDIA's compilers for tests (NVRTC, ptxas) in $wheels"
            PIP_ROOT_USER_ACTION=ignore python3 -m pip install -q --target "$wheels" nvidia-cuda-nvrtc-cu12==12.9.86 \
                nvidia-cuda-runtime-cu12==12.9.79 nvidia-cuda-cccl-cu12==12.9.27 nvidia-cuda-nvcc-cu12==12.9.86 ||
                echo "note: no NVRTC wheels: the test that compiles the CUDA kernels will be skipped"
        fi
    fi
}

case "${1:-}" in
build) build ;;
demo) demo ;;
test) test_needs "$2" ;;
features) features ;;
*) echo "usage: setup.sh build | setup.sh demo | setup.sh test WHEELS_DIR | setup.sh features" >&2; exit 2 ;;
esac
