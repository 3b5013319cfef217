# What people and CI call. `make help` lists it.
#
# Tests and the demo run the development build, so that one compilation serves both. The set-up is part of each
# target and does nothing when all is there.

CARGO ?= cargo
export CARGO_TARGET_DIR ?= $(CURDIR)/target
DEVELOPMENT := $(CARGO_TARGET_DIR)/debug
RUN = LAB_BIN=$(DEVELOPMENT)
# Property tests look at the same cases in each run; `make test SEED=7` looks at others.
SEED ?= 1
# The end-to-end tests are not even built without this feature: they need root and the lab.
LAB := --features evenkeel-tests/lab

.DEFAULT_GOAL := help
.PHONY: help demo test fault-test test-fast properties lint build quality speed migration-speed model deb packages-test binaries setup setup-build

.NOTPARALLEL:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup binaries ## a hot host is relieved, live, in the lab; KEEP=1 leaves the lab up (root)
	@$(RUN) deploy/lab/demo $(if $(KEEP),--keep)

# Programs and tests are built by one command: apart, cargo would compile what they share twice. The agent's
# cost is measured with the build that is shipped.
test: setup ## every test, those in the lab included (root, Debian 12)
	$(CARGO) build --workspace --lib --bins --tests $(LAB)
	$(CARGO) build --release -p evenkeel-agent
	@sync # so that nothing of the build is still on its way to the disk that etcd writes to
	$(RUN) PROPTEST_RNG_SEED=$(SEED) TESTS_NEED_ETCD=1 $(CARGO) test --workspace --no-fail-fast $(LAB)

# make fault-test FAULT_SEEDS='1 2 3' injects as many of each seed; FAULT_CASE=kill/leader only those, FAULT_CASE=34 that one.
FAULT_SEEDS ?= 1
FAULT_COUNT ?= 120
fault-test: setup ## faults injected into migrations: 15 min, FAULT_SEEDS=1 FAULT_COUNT=120 (root)
	$(CARGO) build --workspace --bins
	$(RUN) $(CARGO) test -p evenkeel-tests $(LAB) --test faults -- \
		$(FAULT_SEEDS:%=--seeds %) --count $(FAULT_COUNT) $(or $(FAULT_CASE),--into $(CURDIR)/docs/reference/faults.md)

test-fast: setup-build ## every test that needs neither root nor the lab
	PROPTEST_RNG_SEED=$(SEED) $(CARGO) test --workspace
	@echo
	@echo 'not run: tests/e2e (cargo feature "lab"): it needs root and the lab, which make test sets up'

# As many fleets as one likes, others in each run (or those of SEED).
CASES ?= 5000
properties: setup-build ## the planner's properties on CASES wild fleets each (default 5000)
	PROPTEST_CASES=$(CASES) $(if $(filter file,$(origin SEED)),,PROPTEST_RNG_SEED=$(SEED)) \
		$(CARGO) test --release -p evenkeel-planner --test never --test properties --test curves

lint: setup-build ## formatting and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets $(LAB) -- -D warnings

build: setup-build ## the programs as they are shipped, in target/release
	$(CARGO) build --workspace --bins --release

# Of other programs than the release: deploy/debian/build.
deb: setup ## three Debian packages of the release, in target/packages/release; docs/packaging.md
	nice $(CARGO) build --release --bins -p evenkeel-agent -p evenkeel-scheduler -p evenkeel
	deploy/debian/build $(CARGO_TARGET_DIR)/release $(CARGO_TARGET_DIR)/packages/release

packages-test: setup binaries ## units and packages, installed in a scratch root; the install page in the lab (root)
	$(RUN) $(CARGO) test -p evenkeel-tests $(LAB) --test packages

# Comparisons that are known and proven are not solved again; `rm -r target/quality` forgets them.
QUALITY := $(CARGO_TARGET_DIR)/quality
SOLVER := $(CARGO_TARGET_DIR)/solver
JOBS ?= 2
quality: $(SOLVER)/ready ## the planner beside the exact optimum: minutes, an hour the first time; JOBS=2
	$(CARGO) build --release -p evenkeel-fleets
	$(CARGO_TARGET_DIR)/release/fleets cases --dir $(QUALITY) --sizes 5,10 --seeds 3
	$(CARGO_TARGET_DIR)/release/fleets cases --dir $(QUALITY) --sizes 20 --seeds 2
	$(SOLVER)/bin/python tests/fleets/exact.py --verify
	ls $(QUALITY)/*-*.json | grep -v exact | \
		xargs -P $(JOBS) -n 6 $(SOLVER)/bin/python tests/fleets/exact.py --seconds 60
	$(CARGO_TARGET_DIR)/release/fleets record --dir $(QUALITY)
	$(CARGO_TARGET_DIR)/release/fleets quality --into docs/reference/planner-quality.md

# The solver is a wheel: the product's build needs neither it nor cmake.
$(SOLVER)/ready: tests/fleets/requirements.txt
	python3 -m venv $(SOLVER)
	$(SOLVER)/bin/pip install --quiet --requirement tests/fleets/requirements.txt
	touch $@

speed: ## the planner's time, work and memory, 50 to 5,000 hosts: minutes
	$(CARGO) build --release -p evenkeel-fleets
	$(CARGO_TARGET_DIR)/release/fleets speed --into docs/reference/planner-quality.md

RELEASE := $(CARGO_TARGET_DIR)/release
migration-speed: setup ## migrations through Evenkeel beside virsh migrate: a build and some minutes (root)
	$(CARGO) build --release --bins -p evenkeel-agent -p evenkeel-scheduler -p evenkeel -p evenkeel-tests $(LAB)
	LAB_BIN=$(RELEASE) $(RELEASE)/migration-speed --rounds 6 --into docs/reference/migration-speed.md

# The development build, which optimises what the model spends its time in.
model: setup-build ## leaders, agents, journal and libvirt in every order within bounds: minutes
	$(CARGO) run -p evenkeel-model --bin model -- --into docs/reference/model-checking.md

binaries: setup-build
	$(CARGO) build --workspace --bins

setup:
	@deploy/setup-debian --build --lab

setup-build:
	@deploy/setup-debian --build
