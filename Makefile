# Everything a fresh machine lacks is fetched from package registries, once, on first use.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

# Where rustup is told not to fetch the toolchain of rust-toolchain.toml and does not have it, the stable
# one has to do. Cargo refuses one that is older than rust-version.
ifeq ($(RUSTUP_AUTO_INSTALL),0)
ifneq ($(shell cargo --version >/dev/null 2>&1 || echo missing),)
export RUSTUP_TOOLCHAIN := stable
endif
endif

# The filter must stay small: every worker of every proxy compiles it.
FILTER_MAX_BYTES := 196608

# What Envoy calls without which a filter cannot work at all, ...
LIFECYCLE := _initialize,proxy_abi_version_0_2_1,malloc
# ... and the callbacks, which are the filter's own. Each one costs a call into the VM per request.
FILTER_TRIM := --keep $(LIFECYCLE) $(foreach name,configure request_headers response_trailers tick \
	queue_ready http_call_response delete,--rename versionflag_on_$(name)=proxy_on_$(name)) \
	--rename versionflag_malloc=malloc
# The benchmark's yardstick: the least that any filter exports which looks at requests.
EMPTY_TRIM := --keep $(LIFECYCLE) \
	--keep proxy_on_context_create,proxy_on_configure,proxy_on_delete,proxy_on_request_headers

BUILD := Cargo.toml Cargo.lock rust-toolchain.toml Makefile tools/lib.sh tools/wasm-build.sh tools/wasm-link.sh tools/wasm-trim/Cargo.toml tools/wasm-trim/src/main.rs
# sources DIR...: what a build of these packages depends on
sources = $(foreach dir,$(1),$(dir)/Cargo.toml $(shell find $(dir)/src -type f))

# Handed to every program of the tests package.
TEST_ENV = envoy=$$(tools/envoy.sh) && \
	export VERSIONFLAG_ENVOY="$$envoy" \
	VERSIONFLAG_WASM=$(CURDIR)/target/versionflag.wasm \
	VERSIONFLAG_IMAGE=$(CURDIR)/target/versionflag-image \
	VERSIONFLAG_TRAP_WASM=$(CURDIR)/target/trap-filter.wasm \
	VERSIONFLAG_EMPTY_WASM=$(CURDIR)/target/empty-filter.wasm \
	VERSIONFLAG_EMPTY_TRIMMED_WASM=$(CURDIR)/target/empty-filter-trimmed.wasm &&
# Every build of a tier chooses the same features, so that dependencies are built once.
TESTS := --release --package versionflag-tests --features versionflag-tests/kube
RUN := cargo run $(TESTS) --features versionflag-tests/bench --bin
# What needs nothing but Rust.
UNIT := versionflag-flag versionflag-machine versionflag-service versionflag-local versionflag-cluster versionflag \
	wasm-image wasm-trim
TEST_ENVOY := $(filter-out kube% mesh%,$(notdir $(patsubst %/main.rs,%,$(basename $(wildcard tests/tests/*.rs)) $(wildcard tests/tests/*/main.rs))))

.PHONY: test-page programs help filter empty-filter controller envoy manifests lint test test-unit model simulate test-alerts test-argocd test-wasm test-envoy test-old-envoy \
	test-kube test-mesh test-mesh-fence image demo bench bench-hot-path bench-fence bench-flip bench-first-second bench-releases bench-idle bench-memory bench-scale bench-kube bench-mesh plot-flip soak clean

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

target/trap-filter.wasm: $(BUILD) $(call sources,flag filter)
	@WASM_HIDE='proxy_on_* malloc' WASM_FEATURES=trap tools/wasm-build.sh versionflag-filter $@ $(FILTER_TRIM)

image: target/versionflag-image/index.json ## Pack the filter as an OCI image that Istio can pull: target/versionflag-image
	@printf 'target/versionflag-image: '; cat target/versionflag-image.digest

target/versionflag-image/index.json: target/versionflag.wasm $(BUILD) $(call sources,tools/wasm-image)
	@rm -rf $(@D) $(@D).new
	@cargo run --quiet --package wasm-image -- $< $(@D).new >$(@D).digest
	@mv $(@D).new $(@D)
	@cd target && sha256sum versionflag.wasm >SHA256SUMS

controller: ## Build the controller: target/release/versionflag
	cargo build --release --package versionflag

envoy: ## Print the path of an Envoy, fetched if there is none
	@tools/envoy.sh

manifests: ## Write the manifests that are made from code: manifests/kubernetes/crd.yaml
	@cargo run --quiet --package versionflag -- crd >target/crd.yaml
	@mv target/crd.yaml manifests/kubernetes/crd.yaml

# The cheap checks come first. The wasm crates are only checked, never linked, so the native toolchain can
# lint them too.
lint: ## Check formatting, lints, dependencies, the layers of crates, lengths of files, and shell scripts
	cargo fmt --all --check
	@tools/length.sh
	@tools/purity.sh
	@if command -v shellcheck >/dev/null; then \
		echo shellcheck; shellcheck -x tools/*.sh .ci/run; \
	else \
		echo "shellcheck is not installed: the scripts are not checked"; \
	fi
	@tools/deny.sh
	cargo clippy --workspace --all-targets --features versionflag-tests/kube,versionflag-tests/bench -- -D warnings

test: ## Run all tests: unit, alerts, wasm, real Envoy, real Kubernetes API, real Istio
	@MAKE="$(MAKE)" tools/test.sh

test-unit: export PROPTEST_CASES ?= 256
test-unit: ## Run the tests that need nothing but Rust
	cargo test $(addprefix --package ,$(UNIT))

model: ## Check the model of the protocol in many more states than `make test-unit` does (some minutes)
	cargo test --release --package versionflag-machine --test protocol_model -- --ignored --nocapture --test-threads 1

simulate: export SEEDS ?= 10000
simulate: ## Simulate controllers, an API server and proxies with faults, from 10,000 seeds; SEED=n SEEDS=1 does one again
	cargo test --release --package versionflag-machine --test protocol_model -- --nocapture seeds::no_seed_breaks_a_law

test-wasm: ## Run the shared crate's tests as wasm, under Node
	@tools/wasm-test.sh

test-alerts: ## Test the alerts with promtool
	@promtool=$$(tools/promtool.sh) && cd manifests/monitoring && \
		"$$promtool" check rules --lint-fatal alerts.yaml && "$$promtool" test rules alerts_test.yaml

test-argocd: ## Test Argo CD's health check with Lua, by what the controller writes in every phase
	@lua=$$(tools/lua.sh) && cd manifests/argocd && "$$lua" health_test.lua

programs: filter
	@cargo build $(TESTS) --package versionflag --bins

# Requests are held for two seconds at most: ten thousand of another test beside them take the machine for longer.
test-envoy: programs empty-filter target/trap-filter.wasm ## Run the end-to-end tests with a real Envoy
	@$(TEST_ENV) prometheus=$$(tools/prometheus.sh) && export VERSIONFLAG_PROMETHEUS="$$prometheus" && \
		cargo test $(TESTS) --lib $(foreach test,$(filter-out fence,$(TEST_ENVOY)),--test $(test)) && \
		cargo test $(TESTS) --test fence -- --test-threads 1

test-page: programs ## Look at the page in a real Chromium, through a real switch; PICTURES=1 takes those of docs/page
	@$(TEST_ENV) playwright=$$(tools/playwright.sh) && chromium=$$(tools/chromium.sh) && \
		VERSIONFLAG_BIN=$(CURDIR)/target/release/versionflag VERSIONFLAG_PLAYWRIGHT="$$playwright" \
		VERSIONFLAG_CHROMIUM="$$chromium" node --test tests/page/page.test.mjs

# The oldest Envoy that is supported. It may only be PyPI's: the one on this machine is tested above.
OLD_ENVOY := 1.36.2
test-old-envoy: programs target/trap-filter.wasm ## Run some of the end-to-end tests with the oldest supported Envoy; FULL=1 runs more
	@$(TEST_ENV) envoy=$$(tools/envoy.sh $(OLD_ENVOY)) && export VERSIONFLAG_ENVOY="$$envoy" && \
		cargo test $(TESTS) $(foreach test,switch plugins trap existing $(if $(FULL),service reach),--test $(test))

# Each cluster takes most of a gigabyte, and its tests wait more than they work.
KUBE_AT_ONCE ?= 2
test-kube: programs ## Run the tests with a real Kubernetes API; needs root
	@$(TEST_ENV) programs=$$(tools/kube.sh) && export VERSIONFLAG_KUBE="$$programs" && \
		prometheus=$$(tools/prometheus.sh) && export VERSIONFLAG_PROMETHEUS="$$prometheus" && \
		cargo test $(TESTS) --test kube -- --test-threads $(KUBE_AT_ONCE)

# The oldest Envoy to which a filter may come while it runs: those before it crash then where the processor has memory
# protection keys, as most do.
OLD_MESH_ENVOY := 1.38.2
# One mesh at a time: each has several Envoys and an istiod.
test-mesh: programs image ## Run the tests with a real Istio mesh; needs root
	@$(TEST_ENV) programs=$$(tools/kube.sh --mesh) && export VERSIONFLAG_KUBE="$$programs" && \
		cargo test $(TESTS) --test mesh -- --test-threads 1 && \
		envoy=$$(tools/envoy.sh $(OLD_MESH_ENVOY)) && export VERSIONFLAG_ENVOY="$$envoy" && \
		cargo test $(TESTS) --test mesh -- --exact switch::a_switch_there_and_back_loses_no_request

test-mesh-fence: programs image ## Flip FLIPS=20 times with a fence in a real Istio mesh; needs root
	@$(TEST_ENV) programs=$$(tools/kube.sh --mesh) && export VERSIONFLAG_KUBE="$$programs" && \
		VERSIONFLAG_FENCED_FLIPS=$(or $(FLIPS),20) cargo test $(TESTS) --test mesh -- --exact --nocapture \
		fence::two_versions_never_have_a_request_open_at_once

demo: programs ## Watch a version switch; ROLLBACK=1 shows one that is taken back, FENCED=1 one in which requests wait
	@$(TEST_ENV) cargo run $(TESTS) --bin demo -- $(if $(ROLLBACK),--rollback) $(if $(FENCED),--fenced)

# A benchmark has the name of the program that it runs.
bench: bench-hot-path bench-flip bench-first-second ## Measure with a plain Envoy: all of these, one after the other

bench-hot-path: programs empty-filter ## Measure what the filter costs a request
	@$(TEST_ENV) $(RUN) $@

bench-flip: programs ## Measure flips of a plain Envoy with four workers
	@$(TEST_ENV) $(RUN) $@

bench-first-second: programs ## Measure the first second on the new version, with the probe and without it
	@$(TEST_ENV) $(RUN) $@

bench-fence: programs ## Measure fenced flips beside immediate ones, of two Envoys with four workers each
	@$(TEST_ENV) $(RUN) $@ -- --flips $(or $(FLIPS),200)

bench-releases: programs ## Measure memory over FLIPS=1000 releases through ten versions and one Envoy (about half an hour)
	@$(TEST_ENV) $(RUN) $@ -- --flips $(or $(FLIPS),1000)

bench-memory: programs empty-filter ## Measure what it takes an Envoy to load the filter, and its memory, with 1, 2 and 8 workers
	@$(TEST_ENV) $(RUN) $@

bench-idle: programs ## Measure what `versionflag local` uses while nothing happens (about five minutes)
	@$(TEST_ENV) $(RUN) $@

bench-scale: programs ## Measure flips and restarts with 1,000 to 16,000 simulated proxies; BAD=100 adds bad ones, HTTP1=1 is without HTTP/2
	@$(RUN) $@ -- --flips $(or $(FLIPS),20) --bad $(or $(BAD),0) $(if $(SIZES),--sizes $(SIZES)) $(if $(HTTP1),--http1)

bench-kube: programs ## Measure the controller with 1,000 VersionFlags and 5,000 pods on a real Kubernetes API; needs root
	@programs=$$(tools/kube.sh) && export VERSIONFLAG_KUBE="$$programs" && \
		$(RUN) $@

bench-mesh: programs image ## Measure flips in a real Istio mesh, by ours and other ways; needs root
	@$(TEST_ENV) programs=$$(tools/kube.sh --mesh) && export VERSIONFLAG_KUBE="$$programs" && \
		$(RUN) $@

plot-flip: ## Draw what `make bench-mesh` measured: docs/flip.svg
	@$(RUN) $@

soak: programs ## Switch versions under load for a long time; DAMAGE=local or DAMAGE=kube does damage by chance
	@$(TEST_ENV) $(if $(filter kube,$(DAMAGE)),programs=$$(tools/kube.sh) && export VERSIONFLAG_KUBE="$$programs" &&) \
		$(RUN) soak -- $(if $(DAMAGE),--damage $(DAMAGE) --switches $(or $(SWITCHES),300) $(if $(SEED),--seed $(SEED)))

clean: ## Remove everything that was built
	rm -rf target
