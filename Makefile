# The front door. Each target sets up what it needs; `make help` lists them.
TORCH_ROOT ?= $(CURDIR)/.deps/site/torch
PEERS := $(or $(PEERS_ROOT),.peers)
PYTEST := -B -m pytest -q -p no:cacheprovider
# What differs between transformers 5 (python) and 4 (python4).
PARITY4 := model checkpoint export engine_hello
SECONDS ?= 60
PREFIX ?= /usr/local

.DEFAULT_GOAL := help
.PHONY: help setup build build-all data data-large peers pretrain test unit-test \
	parity lint tidy bench fuzz asan tsan install clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' \
		Makefile

setup: ## install what is missing: Debian packages, libtorch into .deps/
	tools/setup.sh

build: setup ## build the programs into build/bin/
	cmake --preset release -DTORCH_ROOT=$(TORCH_ROOT) --log-level=NOTICE
	cmake --build --preset release --target all_programs

build-all: build ## build the tests and benchmarks, too
	cmake --build --preset release

data: setup ## fetch the corpus and the roberta-base tokenizer into data/
	.deps/venv/bin/python tools/data/make_data.py

data-large: setup ## the larger corpus, data/encyclopedia-large
	.deps/venv/bin/python tools/data/make_data.py --large

peers: ## install the Python programs we are compared with into .peers/
	tools/peers.sh

pretrain: build data ## train for 300 steps, evaluate, fill a mask
	tools/pretrain.sh

test: unit-test parity ## install, build and run all tests

unit-test: build-all data ## the C++ tests, the lints' tests, the install test
	ctest --test-dir build --output-on-failure --no-tests=error \
		--output-junit test_results.xml

# After the unit tests, so that the two never share the cores. One thread: the
# tensors are small, and threads that wait for each other cost minutes.
parity: unit-test ## compare with the Python peers, when they are there
	@if [ -x $(PEERS)/bin/python4 ]; then \
		export DS_BIN=$(CURDIR)/build/bin DS_DATA=$(CURDIR)/data \
			OMP_NUM_THREADS=1; status=0; \
		$(PEERS)/bin/python $(PYTEST) --junitxml build/parity_results.xml \
			tests/parity/*_parity.py || status=1; \
		$(PEERS)/bin/python4 $(PYTEST) --junitxml build/parity4_results.xml \
			$(PARITY4:%=tests/parity/%_parity.py) || status=1; \
		exit $$status; \
	else \
		echo "parity tests: NOT RUN, the Python peers are not installed" \
			"(make peers)"; \
	fi

lint: ## include arrows, size budgets, words, docs, format
	tools/lint.sh

tidy: ## clang-tidy over the torch-free folders
	cmake --preset asan --log-level=NOTICE
	run-clang-tidy -quiet -p build-asan 'deepspeed/[a-z]+/[a-z_]+\.cpp$$'

bench: build-all data ## all benchmarks as one table, in 25 minutes (HELLODEEPSPEED=DIR)
	python3 benchmarks/bench.py

fuzz: ## fuzz every parser, SECONDS=60 in all
	tools/setup.sh --with-fuzz
	tools/fuzz.sh $(SECONDS)

asan: setup ## the torch-free tests under ASan and UBSan
tsan: setup ## the torch-free tests under TSan
asan tsan:
	cmake --preset $@ --log-level=NOTICE
	cmake --build --preset $@
	ctest --preset $@ --output-junit test_results.xml

install: build ## install to PREFIX=/usr/local
	cmake --install build --prefix $(PREFIX)

clean: ## remove the build folders (keeps .deps, .peers and data)
	rm -rf build build-asan build-tsan build-debug build-fuzz
