# The commands of a person at work. Each says what it does; `make help` lists them.

CARGO ?= cargo
RIG    = $(or $(CARGO_TARGET_DIR),target)/debug/rig

# The tests of the node need root: their own, or sudo's where it asks for no password.
ROOT := $(shell if [ "$$(id -u)" = 0 ]; then echo yes; elif sudo -n true 2>/dev/null; then echo sudo; fi)

.DEFAULT_GOAL := help
.PHONY: help up down status test generate lint

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

test: ## Run every test, against real components
	$(CARGO) test --locked --workspace
ifeq ($(ROOT),yes)
	$(CARGO) test --locked --workspace --features rig/node --test node
else ifeq ($(ROOT),sudo)
	CARGO_TARGET_$(shell rustc -vV | sed -n 's/host: //p' | tr a-z- A-Z_)_RUNNER='sudo --preserve-env=HOME,XDG_CACHE_HOME,PATH,RIG_INSTALL' \
	  $(CARGO) test --locked --workspace --features rig/node --test node
else
	@echo 'The tests of the node were left out: they need root, or sudo without a password.'
endif

generate: ## Write the generated files: crds/, and the chart's copy of them
	$(CARGO) build --locked --workspace --bins
	$(dir $(RIG))millrace crds --dir crds
	cp crds/*.yaml charts/millrace/files/crds/

lint: ## Check formatting and lints as CI does
	$(CARGO) fmt --all --check
	@unformatted=$$(gofmt -l rig/kubernetes); [ -z "$$unformatted" ] || { echo "run gofmt -w on: $$unformatted"; exit 1; }
	$(CARGO) clippy --locked --workspace --all-targets --features rig/node -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --quiet --locked --workspace --no-deps --document-private-items
