# Everything a fresh machine lacks is fetched from package registries, once, on first use.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

# The filter must stay small: every worker of every proxy compiles it.
FILTER_MAX_BYTES := 150000

# What Envoy calls without which a filter cannot work at all, ...
LIFECYCLE := _initialize,proxy_abi_version_0_2_1,malloc
# ... and the callbacks, which are the filter's own. Each one costs a call into the VM per request.
FILTER_TRIM := --keep $(LIFECYCLE) $(foreach name,configure request_headers tick \
	queue_ready http_call_response delete,--rename versionflag_on_$(name)=proxy_on_$(name)) \
	--rename versionflag_malloc=malloc
# The benchmark's yardstick: the least that any filter exports which looks at requests.
EMPTY_TRIM := --keep $(LIFECYCLE) \
	--keep proxy_on_context_create,proxy_on_configure,proxy_on_delete,proxy_on_request_headers

BUILD := Cargo.toml Cargo.lock Makefile tools/lib.sh tools/wasm-build.sh tools/wasm-link.sh tools/wasm-trim/Cargo.toml tools/wasm-trim/src/main.rs
# sources DIR...: what a build of these packages depends on
sources = $(foreach dir,$(1),$(dir)/Cargo.toml $(shell find $(dir)/src -type f))

# Handed to every program of the tests package.
TEST_ENV = envoy=$$(tools/envoy.sh) && \
	export VERSIONFLAG_ENVOY="$$envoy" \
	VERSIONFLAG_WASM=$(CURDIR)/target/versionflag.wasm \
	VERSIONFLAG_EMPTY_WASM=$(CURDIR)/target/empty-filter.wasm \
	VERSIONFLAG_EMPTY_TRIMMED_WASM=$(CURDIR)/target/empty-filter-trimmed.wasm &&
RUN := cargo run --release --package versionflag-tests --bin

.PHONY: help filter empty-filter controller envoy manifests lint test test-unit test-wasm test-envoy \
	test-kube demo bench bench-kube soak clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' Makefile

filter: target/versionflag.wasm ## Build the filter: target/versionflag.wasm and its .sha256
empty-filter: target/empty-filter.wasm target/empty-filter-trimmed.wasm ## Build the benchmark's yardstick

target/versionflag.wasm: $(BUILD) $(call sources,flag filter)
	@WASM_HIDE='proxy_on_* malloc' WASM_MAX_BYTES=$(FILTER_MAX_BYTES) tools/wasm-build.sh versionflag-filter $@ $(FILTER_TRIM)

target/empty-filter.wasm: $(BUILD) $(call sources,tests/filters/empty)
	@tools/wasm-build.sh empty-filter $@

target/empty-filter-trimmed.wasm: $(BUILD) $(call sources,tests/filters/empty)
	@tools/wasm-build.sh empty-filter $@ $(EMPTY_TRIM)

controller: ## Build the controller: target/release/versionflag
	cargo build --release --package versionflag

envoy: ## Print the path of an Envoy, fetched if there is none
	@tools/envoy.sh

manifests: ## Write the manifests that are made from code: manifests/kubernetes/crd.yaml
	@cargo run --quiet --package versionflag -- crd >target/crd.yaml
	@mv target/crd.yaml manifests/kubernetes/crd.yaml

# The wasm crates are only checked, never linked, so the native toolchain can lint them too.
lint: ## Check formatting, lints and shell scripts
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features versionflag-tests/kube -- -D warnings
	@if command -v shellcheck >/dev/null; then \
		echo shellcheck; shellcheck -x tools/*.sh .ci/run; \
	else \
		echo "shellcheck is not installed: the scripts are not checked"; \
	fi

test: ## Run all tests: unit, wasm, real Envoy, real Kubernetes API
	@MAKE="$(MAKE)" tools/test.sh

test-unit: ## Run the tests that need nothing but Rust
	cargo test --package versionflag-flag --package versionflag --package wasm-trim

test-wasm: ## Run the shared crate's tests as wasm, under Node
	@tools/wasm-test.sh

test-envoy: filter empty-filter controller ## Run the end-to-end tests with a real Envoy
	@$(TEST_ENV) prometheus=$$(tools/prometheus.sh) && export VERSIONFLAG_PROMETHEUS="$$prometheus" && cargo test --release --package versionflag-tests

# One cluster at a time: each takes most of a gigabyte.
test-kube: filter controller ## Run the tests with a real Kubernetes API; needs root
	@$(TEST_ENV) programs=$$(tools/kube.sh) && export VERSIONFLAG_KUBE="$$programs" && \
		cargo test --release --package versionflag-tests --features kube --test 'kube*' -- --test-threads 1

demo: filter controller ## Watch a version switch; ROLLBACK=1 shows one that is taken back
	@$(TEST_ENV) $(RUN) demo -- $(if $(ROLLBACK),--rollback)

bench: filter empty-filter controller ## Measure the hot path and the flip
	@$(TEST_ENV) $(RUN) bench-hot-path && $(RUN) bench-flip

bench-kube: controller ## Measure the controller with 1,000 VersionFlags on a real Kubernetes API; needs root
	@programs=$$(tools/kube.sh) && export VERSIONFLAG_KUBE="$$programs" && \
		cargo run --release --package versionflag-tests --features kube --bin bench-kube

soak: filter controller ## Switch versions under load for a long time
	@$(TEST_ENV) $(RUN) soak

clean: ## Remove everything that was built
	rm -rf target
