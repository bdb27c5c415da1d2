# The two commands of the README. Each is complete on a fresh Debian 12 machine.
SHELL := /bin/bash
export PATH := $(HOME)/.cargo/bin:$(PATH)
.PHONY: demo test build lint bench fuzz install clean

# How packages are installed: as root directly, else through sudo.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

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

## Measures Vimana beside what a user would pick instead. Takes some minutes.
bench:
	@./ci/packages test
	@cargo build --release --locked -p vimana
	@./benches/run target/release/vimana

## Runs the property tests on cases never drawn before, then fuzzes the manifest's parser for a minute (needs a nightly
## toolchain and cargo-fuzz).
fuzz:
	@seed=$$RANDOM$$RANDOM; echo "PROPTEST_RNG_SEED=$$seed"; \
	  PROPTEST_RNG_SEED=$$seed PROPTEST_CASES=20000 cargo test --workspace --locked --exclude vimana
	cd crates/hac/fuzz && cargo +nightly fuzz run manifest -- -max_total_time=60

## Puts the binary where the system finds it.
install: 
	cargo build --release --locked -p vimana
	$(SUDO) install -m 0755 target/release/vimana /usr/local/bin/vimana

clean:
	cargo clean
