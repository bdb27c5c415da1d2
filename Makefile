# The two commands of the README. Each is complete on a fresh Debian 12 machine.
SHELL := /bin/bash
export PATH := $(HOME)/.cargo/bin:$(PATH)
.PHONY: demo test build lint bench fuzz attacks soak install clean

# How packages are installed: as root directly, else through sudo.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

FUZZ_SECONDS ?= 60
SOAK_ROUNDS ?= 3000
FUZZ_TARGETS := hac/manifest hac/policy hac/settings hac/import evidence/advisory evidence/signature evidence/keyless evidence/version \
  image/document image/layer image/answer image/inventory spacecore/archive spacecore/channel node/folder node/frames node/kernel node/program

## Builds Vimana and shows its main job: an ordinary OCI image answers from inside a virtual machine.
demo:
	@./ci/packages demo
	@cargo build --release --locked -p vimana
	@./ci/demo target/release/vimana

## Runs every test, and says what could not be tested here.
test:
	@./ci/packages test
	@./ci/test

## Checks form and lints.
lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

## Plays every attack against real guests and against the jail, and prints what became of each.
attacks:
	@./ci/packages test
	@cargo nextest run --workspace --locked --no-capture -E 'test(attacks::) or binary(jail)'

## Measures Vimana beside what a user would pick instead. Takes some minutes.
bench:
	@./ci/packages test
	@cargo build --release --locked -p vimana
	@./benches/run target/release/vimana

## Runs the property tests on cases never drawn before, then fuzzes each parser for a minute, beginning with real inputs (needs a
## nightly toolchain and cargo-fuzz). FUZZ_SECONDS=3600 gives each an hour.
fuzz:
	@seed=$$RANDOM$$RANDOM; echo "PROPTEST_RNG_SEED=$$seed"; \
	  FUZZ_CORPUS=1 PROPTEST_RNG_SEED=$$seed PROPTEST_CASES=20000 cargo test --workspace --locked --exclude vimana
	@set -e; for target in $(FUZZ_TARGETS); do \
	  echo "$$target"; \
	  (cd crates/$${target%/*}/fuzz && CARGO_TARGET_DIR=$(CURDIR)/target/fuzz cargo +nightly fuzz run $${target#*/} -- \
	    -max_total_time=$(FUZZ_SECONDS)); \
	done

## Kills the node at random moments, thousands of times, with Wasm programs, and a tenth as often with microVMs. SOAK_ROUNDS says how often, SOAK_SEED repeats
## what a seed has done.
soak:
	@./ci/packages test
	@seed=$${SOAK_SEED:-$$RANDOM$$RANDOM}; echo "SOAK_SEED=$$seed"; rounds=$(SOAK_ROUNDS); \
	  NODE_CRASHES_SEED=$$seed NODE_CRASHES=$$rounds NODE_VM_CRASHES=$$((rounds / 10)) \
	  cargo nextest run --profile soak --workspace --locked -E 'test(crashes::what_was_acknowledged) or test(crashes::microvms)'

## Puts the binary where the system finds it.
install: 
	cargo build --release --locked -p vimana
	$(SUDO) install -m 0755 target/release/vimana /usr/local/bin/vimana

clean:
	cargo clean
