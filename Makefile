# The commands of a person at work. Each says what it does; `make help` lists them.

CARGO ?= cargo
TARGET = $(or $(CARGO_TARGET_DIR),target)
RIG    = $(TARGET)/debug/rig

# The tests of the node need root: their own, or sudo's where it asks for no password.
ROOT := $(shell if [ "$$(id -u)" = 0 ]; then echo yes; elif sudo -n true 2>/dev/null; then echo sudo; fi)

.DEFAULT_GOAL := help
.PHONY: help demo bench bench-ticks bench-hops bench-members soak up down status program image test generate lint

# Static, so that an image needs nothing else.
HOST    := $(shell rustc -vV | sed -n 's/host: //p')
SHIPPED  = $(TARGET)/image/$(HOST)/image

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Install the chart into the node, run flows and three tiers; CONTEXT=name IMAGE=ref: in a cluster of yours
	@CONTEXT='$(CONTEXT)' IMAGE='$(IMAGE)' COMPONENT_IMAGE='$(COMPONENT_IMAGE)' TIER_IMAGE='$(TIER_IMAGE)' MAKE='$(MAKE)' RIG='$(RIG)' demo/run.sh

bench: ## Measure what a start costs, on the node of this checkout
	@MAKE='$(MAKE)' RIG='$(RIG)' CARGO='$(CARGO)' demo/bench.sh

up: ## Start a one-node Kubernetes of our own; needs root, and asks sudo for it
	$(CARGO) build --locked --workspace --bins
	@$(RIG) up

down: | $(RIG) ## End it; its state in .rig stays (to remove that too: target/debug/rig down --forget)
	@$(RIG) down

status: | $(RIG) ## Say how it is
	@$(RIG) status

# Asking and ending never wait for a compiler: only where there is no program at all it is built.
$(RIG):
	$(CARGO) build --locked --workspace --bins

program: ## Build the programs that are shipped, and those of the examples: static, small
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --locked --profile image --target $(HOST) \
	  --target-dir $(TARGET)/image --package millrace --package component --package tier --bins
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --locked --profile launcher --target $(HOST) \
	  --target-dir $(TARGET)/image --package launch --bins
	@cp $(TARGET)/image/$(HOST)/launcher/launch $(SHIPPED)/launch

image: program | $(RIG) ## Write the images and import them into the node that runs
	@demo/images.sh '$(RIG)' '$(SHIPPED)' '$(TARGET)/images.env'

test: ## Run every test, against real components
	$(CARGO) test --locked --workspace
ifeq ($(ROOT),yes)
	@$(MAKE) --no-print-directory program
	$(CARGO) test --locked --workspace --features rig/node,millrace/node --test node --test open_integration_hub --test roboconf_and_stratos
else ifeq ($(ROOT),sudo)
	@$(MAKE) --no-print-directory program
	CARGO_TARGET_$(shell echo $(HOST) | tr a-z- A-Z_)_RUNNER='sudo --preserve-env=HOME,XDG_CACHE_HOME,PATH,RIG_INSTALL' \
	  $(CARGO) test --locked --workspace --features rig/node,millrace/node --test node --test open_integration_hub --test roboconf_and_stratos
else
	@echo 'The tests of the node were left out: they need root, or sudo without a password.'
endif

bench-ticks: ## Measure how late ticks are when many schedules are due at once
	$(CARGO) bench --locked --profile dev --bench ticks

bench-members: ## Measure starts in order, the load balancer with a thousand members, the gate, and planning
	$(CARGO) bench --locked --bench members --bench gate --bench planning

bench-hops: program ## Measure messages through five built-in nodes against loops by hand
	$(CARGO) bench --locked --profile dev --bench hops

soak: program ## Ten flows with a schedule, for ten minutes, while everything dies at random; needs root
	$(CARGO) test --locked --features node --test soak -- --ignored --nocapture

generate: ## Write the generated files: crds/, and the chart's copy of them
	$(CARGO) build --locked --workspace --bins
	$(dir $(RIG))millrace crds --dir crds
	cp crds/*.yaml charts/millrace/files/crds/

lint: ## Check formatting and lints as CI does
	$(CARGO) fmt --all --check
	@unformatted=$$(gofmt -l rig/kubernetes); [ -z "$$unformatted" ] || { echo "run gofmt -w on: $$unformatted"; exit 1; }
	$(CARGO) clippy --locked --workspace --all-targets --features rig/node,millrace/node -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --quiet --locked --workspace --no-deps --document-private-items
