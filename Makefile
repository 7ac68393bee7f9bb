# The things one does here. Each first sees to what it needs (deploy/setup.sh says what it installs).
#
#   make demo      a whole mesh on this machine, live in the terminal; Ctrl-C leaves nothing behind
#   make test      everything a change must pass: lint, docs, all tests
#   make failures  hostile bytes and bad luck on both drivers: what was tried, how often, how often it went wrong; all of it or
#                  ROWS="H2-01 H2-05"; with PROXY=release on the program as it is shipped, one driver after the other
#   make bench     every workload beside other proxies (ten minutes); bench/run --help for more
#   make cost      instructions per request beside the recorded ones (perf/instructions.jsonl); over 2 % more fails
#   make fuzz      searches for bytes that parsers get wrong: SECONDS=60 of each of TARGETS="h1_req …"; nightly toolchain
#   make sim       random worlds around the proxy, simulated: SEEDS=10000 of them, or SEEDS=17..18 for one that failed
#   make lint      formatting, clippy, docs
#
# And one that needs Go 1.26 on the PATH:
#
#   make conformance    Gateway API's own suite; which tests fail, and why, is in control/tests/conformance/expected.txt

built := $(or $(CARGO_TARGET_DIR),target)

.PHONY: demo test failures bench cost fuzz sim lint conformance autobahn

demo:
	@deploy/setup.sh build
	cargo build --locked --release -p ringway -p dataplane
	@exec $(built)/release/ringway demo

test: lint
	@deploy/setup.sh test
	cargo test --locked --workspace --no-fail-fast

failures: shipped := $(if $(filter release,$(PROXY)),--in-turn)
failures:
	@deploy/setup.sh test
	$(if $(shipped),cargo build --locked --release -p dataplane)
	$(if $(shipped),RINGWAY_PROXY=$(abspath $(built))/release/ringway-proxy) cargo test --locked -p dataplane --test failures -- --peers $(shipped) $(ROWS)

lint:
	@deploy/setup.sh build
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

bench:
	bench/run --workload all --rounds 3 --seconds 1 --warm 0.5

sim:
	@deploy/setup.sh build
	SIM_SEEDS=$(or $(SEEDS),10000) cargo test --locked -p dataplane --test worlds in_no_world -- --nocapture

# Not a part of `make test`: it takes a build for release with all its optimisation, minutes on two cores, for a minute of
# counting; and the counts are those of the machine that recorded them (its C library and processor choose what runs).
cost:
	bench/run --callgrind ringway-epoll --check --workload get-32,post-4k,get-64k,new-connection,prefixes,tcp-32,h2-8x16,h2-32x1,grpc-unary

fuzz:
	@deploy/setup.sh build
	dataplane/fuzz/libfuzzer/run $(or $(SECONDS),60) $(TARGETS)

conformance:
	control/tests/conformance/run

autobahn:
	@deploy/setup.sh build
	cargo build --locked --release -p dataplane
	RINGWAY_PROXY=$(built)/release/ringway-proxy dataplane/tests/websocket/autobahn
