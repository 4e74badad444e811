# Every command of the project. `make` alone lists them.

RECIPE  ?= examples/reference/tiffin.yaml
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
DIST    ?= dist
stage   ?= local
SECONDS ?= 60

TARGET  := x86_64-unknown-linux-gnu
CARGO_TARGET_DIR ?= target
export CARGO_TARGET_DIR
# Static; and small: relocations packed, equal functions once, no tables for unwinding, which nothing does. The path is
# relative, and those of the crates' sources are cut, so that the binary is the same wherever it is
# built, and names no folder of that machine.
BOXFLAGS := -C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs \
	-C force-unwind-tables=no -C link-arg=-Wl,--no-eh-frame-hdr,-O2,--icf=all -C link-arg=-Wl,-T,entrypoint/link.ld
BIN     := $(CARGO_TARGET_DIR)/release

.DEFAULT_GOAL := help
.PHONY: help setup setup-test build package-docker test test-unit test-e2e test-long fuzz lint fmt bench fulldeploy clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  RECIPE=$(RECIPE) VERSION=$(VERSION) DIST=$(DIST) stage=$(stage)"

setup: ## Install what a build needs from Debian (root)
	@ci/setup build

setup-test: ## Install what the tests need from Debian and PyPI (root)
	@ci/setup test

build: setup ## Compile the builder and the static entrypoint
	cargo build --locked --release --package tiffin
	for sources in $${CARGO_HOME:-$$HOME/.cargo}/registry/src/*; do here="$$here --remap-path-prefix=$$sources="; done; \
	RUSTFLAGS="$(BOXFLAGS)$$here" cargo build --locked --profile box --package entrypoint --target $(TARGET)
	cp $(CARGO_TARGET_DIR)/$(TARGET)/box/entrypoint $(BIN)/entrypoint.new
	mv $(BIN)/entrypoint.new $(BIN)/entrypoint

package-docker: build ## Bake RECIPE and write DIST/NAME-VERSION.tar
	$(BIN)/tiffin build --file $(RECIPE) --output $(DIST) --version $(VERSION)

test: setup-test test-unit test-e2e ## Everything that guards a change; what CI runs

test-unit: setup-test build ## Unit and integration tests of all crates
	CI=1 TIFFIN_ENTRYPOINT=$(abspath $(BIN))/entrypoint TIFFIN_TOOLS=$(abspath $(CARGO_TARGET_DIR))/tools ci/engine run cargo test --locked --workspace --no-fail-fast

test-e2e: build ## Bake the reference stack, load it, run it, ask it
	ci/engine run ci/e2e

test-long: setup-test build ## The slow proofs: a storm, the suites of others, udata as a box; ROLES=FOLDER, QUADLET=FILE too
	PROPTEST_CASES=100000 cargo test --locked --package services
	PROPTEST_CASES=100000 cargo test --locked --package entrypoint --bin entrypoint -- supervisord:: machine_tests::
	TIFFIN_ENTRYPOINT=$(abspath $(BIN))/entrypoint ci/supervisors/storm
	TIFFIN_ENTRYPOINT=$(abspath $(BIN))/entrypoint ci/outside
	cargo test --locked --package image --test layer -- --ignored
	cargo test --locked --package tiffin --test killed --test full --test sparse -- --ignored
	ci/engine run ci/e2e long_
	cargo test --locked --package entrypoint --test upgrade -- --ignored
	ci/engine run ci/e2e-udata
	ci/fuzz 20
	$(if $(QUADLET),QUADLET=$(QUADLET) cargo test --locked --package entrypoint --test manifest generator -- --ignored)
	$(if $(ROLES),ci/engine run ci/e2e-roles $(ROLES))

fuzz: ## What a fuzzer makes up, for the readers of what comes from outside, SECONDS=60 each
	ci/fuzz $(SECONDS)

lint: ## Formatting, clippy, shellcheck, Ansible's syntax check
	ci/lint

fmt: ## Format the Rust code
	cargo fmt --all

bench: build ## Speed and size as ratios against other tools, in one run; DINIT=FOLDER with a built dinit
	@ci/setup bench
	ci/engine run ci/builder/bench --json $(CARGO_TARGET_DIR)/bench-builder.json
	ci/engine run ci/builder/bench --recipe examples/udata/tiffin.yaml --changed examples/udata/udata.cfg.j2 --only archive warm --json $(CARGO_TARGET_DIR)/bench-udata.json
	ci/supervisors/bench --json $(CARGO_TARGET_DIR)/bench-entrypoint.json $(if $(DINIT),--dinit $(DINIT))

fulldeploy: setup ## Deploy the reference stack with the playbooks; stage=local is this machine
	cd playbooks && ansible-playbook -i inventories/$(stage) site.yml

clean: ## Remove what was built; the cache of layers stays
	rm -rf $(CARGO_TARGET_DIR) $(DIST)
