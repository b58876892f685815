# Two commands do everything: `make demo` and `make test`. `make setup` installs what they need
# and is a part of both. Everything is built with one profile, into a target directory in the
# user's cache, so that a second checkout does not compile RocksDB again.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/flotilla/target
CARGO_FLAGS := --release --workspace --locked
BINARY := $(CARGO_TARGET_DIR)/release/flotilla
export FLOTILLA_BIN := $(BINARY)

DEMO_ARGS ?=
BENCH_ARGS ?=
MINUTES ?= 30
SEED ?=
SEEDS ?= 100000
FUZZ_SECONDS ?= 60
KEYS ?=
SUITE_ARGS ?=
CUT ?= 600s
ROUNDS ?= 20
# Limits for what is large on purpose, in MiB.
LARGE = --data-max 32768 --log-max 16384 --memory-max 4096 $(if $(SEED),--seed $(SEED))

.PHONY: help setup setup-clients build demo test bench chaos hunt join failover drain steady disk-full flood outage overrun collect large simulate calibrate fuzz instructions fmt lint

help: ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: ## installs missing system packages (apt; sudo where not root)
	@./.ci/setup

setup-clients: setup ## also the Redis client libraries that the tests drive (pip, npm)
	@./.ci/setup-clients

build: setup ## builds everything; the last line is the path of the flotilla binary
	cargo build $(CARGO_FLAGS)
	@echo $(BINARY)

demo: build ## two datacenters on this machine, with clients, live lag and a dashboard
	@$(BINARY) demo $(DEMO_ARGS)

test: setup-clients ## formats checked, lints, all tests
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --no-deps
	cargo build $(CARGO_FLAGS)
	cargo test $(CARGO_FLAGS)

bench: build ## three synced nodes against redis-server, as ratios; BENCH_ARGS=--gates: aims, and etcd
	@$(BINARY) bench $(BENCH_ARGS)

chaos: build ## breaks real clusters for MINUTES, from SEED
	@$(BINARY) chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

hunt: build ## the same over three clusters with two syncers each: everything there is to break
	@$(BINARY) chaos --minutes $(MINUTES) --datacenters a,b,c --syncers 2 $(if $(SEED),--seed $(SEED))

failover: build ## ROUNDS times a node is killed: how long its groups take no writes (1.5 s at most)
	@$(BINARY) chaos --scenario failover --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

drain: build ## ROUNDS times a node is told to leave: the same (50 ms at most)
	@$(BINARY) chaos --scenario drain --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

steady: build ## MINUTES of mixed load at half of the maximum: p99.9 beside compaction and a node that comes back
	@$(BINARY) chaos --scenario steady --minutes $(MINUTES) $(LARGE)

disk-full: build ## small disks are filled up to their reserve and to the last block (root: mounts them)
	@$(BINARY) chaos --scenario disk-full $(if $(SEED),--seed $(SEED))

flood: build ## clients that do not read, and send huge values, against a node with little memory
	@$(BINARY) chaos --scenario flood $(if $(SEED),--seed $(SEED))

join: build ## a cluster joins two that hold KEYS keys, under load, with five kills
	@$(BINARY) chaos --scenario join --keys $(or $(KEYS),5000000) $(LARGE)

outage: build ## a cluster is cut off for CUT, within the backlog budget
	@$(BINARY) chaos --scenario outage --cut $(CUT) $(LARGE)

overrun: build ## a cluster is cut off for CUT at least, beyond the backlog budget, and given up
	@$(BINARY) chaos --scenario overrun --cut $(CUT) --fence-after 20 $(LARGE)

collect: build ## KEYS keys of three clusters end, and nothing may be left of them
	@$(BINARY) chaos --scenario collect --keys $(or $(KEYS),1000000) $(LARGE)

large: build ## a set, hash, sorted set and list of KEYS elements each: built, asked, deleted
	@$(BINARY) chaos --scenario large --keys $(or $(KEYS),5000000) $(LARGE)

simulate: build ## SEEDS histories of clusters without processes, on the real merge code
	@$(BINARY) simulate --seeds $(SEEDS) --first $(or $(SEED),1)

calibrate: build ## puts one rule wrong at a time, and counts histories until that is found
	@$(BINARY) simulate --calibrate --seeds $(SEEDS)

fuzz: build ## gives damaged bytes to every decoder for FUZZ_SECONDS, from SEED
	@$(BINARY) fuzz --seconds $(FUZZ_SECONDS) $(if $(SEED),--seed $(SEED))

redis-py-suite: build ## the test suite of redis-py against a node, RESP2 and RESP3 (pip; SUITE_ARGS="-k NAME")
	@./.ci/setup-redis-py-suite
	@python3 deploy/tests/clients/redis_py_suite/run.py $(SUITE_ARGS)

instructions: build ## counts a node's instructions per SET and GET, by thread (valgrind)
	@command -v callgrind_control >/dev/null || .ci/setup valgrind
	@.ci/instructions $(BINARY)

fmt: ## formats the code
	cargo fmt --all

lint: setup ## clippy and rustdoc, warnings as errors
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --no-deps
