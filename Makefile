# make demo: build and train the demo preset.   make test: every check and test.   make help: the rest.

BACKEND ?= auto
# rustup's folder is not on every shell's path.
CARGO ?= PATH="$$PATH:$$HOME/.cargo/bin" cargo
# For bench-cpu: a Python that has torch.
PYTHON ?= python3
ROUNDS ?= 5
# Where NVIDIA's compiler wheels go: tests compile the CUDA kernels with them, no GPU needed.
CUDA_WHEELS = target/cuda-wheels
# Debian's and Ubuntu's packages, as root or through sudo without a password; fails quietly elsewhere.
APT = as=; [ "$$(id -u)" = 0 ] || as="sudo -n"; \
	install() { $$as apt-get update -qq && \
		$$as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$$@"; }; \
	quietly() { "$$@" </dev/null >/dev/null 2>&1; }; quietly install

# Two steps that install something at the same time would be in each other's way.
.NOTPARALLEL:
.PHONY: help demo build test bench-cpu setup-build setup-demo setup-test

help:
	@echo "make demo [BACKEND=auto|cpu|wgpu|cuda]       build, then train a small model on built-in exercises (3 minutes on two cores)"
	@echo "make test                                    formatting, lints, and every test"
	@echo "make build                                   target/release/trainer"
	@echo "make bench-cpu [PYTHON=python3] [ROUNDS=5]   the CPU backend beside PyTorch, with a Python that has torch"

demo: build setup-demo
	./target/release/trainer --backend $(BACKEND)

build: setup-build
	$(CARGO) build --release

# The cheap checks first; cargo test last, since its closing lines are what CI reads.
test: setup-build setup-test
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test --workspace

bench-cpu: build
	@PYTHON="$(PYTHON)" ROUNDS="$(ROUNDS)" sh benches/cpu.sh

# gcc alone does not bring the C library's headers on Debian, and nothing links without them.
setup-build:
	@command -v cc >/dev/null 2>&1 || { echo "installing gcc libc6-dev"; $(APT) gcc libc6-dev || true; }
	@sh scripts/setup.sh build

setup-demo:
	@command -v python3 >/dev/null 2>&1 || { echo "installing python3"; $(APT) python3 || \
		echo "note: no python3 (apt-get install python3): the demo shows what it wrote without running it"; }

setup-test:
	@sh scripts/setup.sh test $(CUDA_WHEELS)
