# make demo: build and train the demo preset.   make test: every check and test.   make help: the rest.

BACKEND ?= auto
# rustup's folder is not on every shell's path.
CARGO ?= PATH="$$PATH:$$HOME/.cargo/bin" cargo
# For bench-cpu: a Python that has torch.
PYTHON ?= python3
ROUNDS ?= 5
# Where NVIDIA's compiler wheels go: tests compile the CUDA kernels with them, no GPU needed.
CUDA_WHEELS = target/cuda-wheels
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

# The cheap checks first; cargo test last, since its closing lines are what CI reads. With MPI where it can be built.
test: setup-build setup-test
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets $$(sh scripts/setup.sh features) -- -D warnings
	$(CARGO) test --workspace $$(sh scripts/setup.sh features)

bench-cpu: build
	@PYTHON="$(PYTHON)" ROUNDS="$(ROUNDS)" sh benches/cpu.sh

setup-build:
	@sh scripts/setup.sh build

setup-demo:
	@sh scripts/setup.sh demo

setup-test:
	@sh scripts/setup.sh test $(CUDA_WHEELS)
