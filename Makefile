# What each target does: README.md. SUITE (make test SUITE=unit): e2e/run_tests.py lists them.
SHELL := /bin/bash
PYTHON := /usr/bin/python3
CCACHE := $(if $(shell command -v ccache),,-DCMAKE_CXX_COMPILER_LAUNCHER=)
.DEFAULT_GOAL := build
.PHONY: setup build demo test bench lint clean

setup:
	@cmake/setup_debian.sh

# The programs land in build/bin.
build: setup
	@cmake --preset release $(CCACHE) -Wno-dev
	cmake --build --preset release

demo: build
	@$(PYTHON) e2e/demo.py

# Ends with one line: N passed, N failed.
test:
	@start=$$(date +%s); status=0; cmake/setup_debian.sh || status=$$?; \
	$(PYTHON) e2e/run_tests.py --setup-status=$$status --setup-seconds=$$(( $$(date +%s) - start )) $(SUITE)

bench: build
	@$(PYTHON) e2e/bench.py

lint: setup
	@$(PYTHON) e2e/run_tests.py lint

clean:
	rm -rf build
