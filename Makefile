# make demo: build and train the demo preset.   make test: every check and test.   make help: the rest.

BACKEND ?= auto
CARGO ?= cargo
# Where NVIDIA's compiler wheels go: tests compile the CUDA kernels with them, no GPU needed.
CUDA_WHEELS = target/cuda-wheels

.PHONY: help demo build test check setup-build setup-test

help:
	@echo "make demo [BACKEND=auto|cpu|wgpu|cuda]   build, then train a small model on built-in exercises (about 5 minutes)"
	@echo "make test                                formatting, lints, and every test"
	@echo "make build                               target/release/trainer"

demo: build
	./target/release/trainer --backend $(BACKEND)

build: setup-build
	$(CARGO) build --release

test: setup-build setup-test
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test --workspace

setup-build:
	@sh scripts/setup.sh build

setup-test:
	@sh scripts/setup.sh test $(CUDA_WHEELS)
