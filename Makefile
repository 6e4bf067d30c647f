# make setup | demo | test | test-extras | test-slow | check | wheel-check | cpp | aarch64-check | clean
# Everything goes into .venv in this folder; nothing is installed elsewhere.

VENV := .venv
BIN := $(VENV)/bin
# The first of these that exists sets up the environment; override with: make PYTHON=/path/to/python3.12
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
# onnxruntime-gpu also serves the CPU, and TensorRT-RTX builds engines without a GPU, which the tests do; both are wheels for x86-64
# Linux. Elsewhere there is only onnxruntime, and tests of engines are skipped.
comma := ,
RUNTIME := $(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),gpu$(comma)rtx,cpu)
# Test processes: a test may itself train, so more of them than this need cores and about 2 GB of memory each.
WORKERS ?= 2
STAMP := $(VENV)/.ready
EXTRAS := $(VENV)/.extras
CONSTRAINTS = constraints/$$($(BIN)/python -c 'import sys; print("py3%d" % sys.version_info[1])').txt
export NO_ALBUMENTATIONS_UPDATE := 1

.PHONY: setup demo test test-extras test-slow check format wheel-check cpp aarch64-check clean

setup: $(STAMP)

$(STAMP): pyproject.toml $(wildcard constraints/*.txt)
	@test -n "$(PYTHON)" || { echo "gddctl needs CPython 3.11, 3.12 or 3.13 with venv (on Debian and Ubuntu: apt install python3-venv)"; exit 4; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) \
		--editable '.[train,$(RUNTIME),report,serve,dev]'
	touch $(STAMP)

demo: setup
	$(BIN)/gddctl run --out runs/demo

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# What make test skips for want of mlflow, wandb, transformers and openvino; installs them, and all they bring, beside the rest. Their
# tests skip where one of them is not importable, so that is asked first.
test-extras: $(EXTRAS)
	$(BIN)/python -c 'import mlflow, openvino, transformers, wandb'
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/distill/test_tracking.py tests/models/test_from_transformers.py \
		tests/pipeline/test_importing.py tests/runtime/test_openvino.py tests/runtime/test_contract.py

$(EXTRAS): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[teachers,track,openvino]'
	touch $(EXTRAS)

test-slow: setup
	$(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The wheel without extras answers every --help; the device part predicts on CPython 3.10, where there is one, without torch.
wheel-check: setup
	$(BIN)/python tests/wheel_check.py

# The C++ example of a release against the library inside the installed ONNX Runtime wheel; its mask must be Python's, bit for bit.
# ORT_INCLUDE: the folder with onnxruntime_cxx_api.h, of the wheel's version or older (Debian 13: libonnxruntime-dev). RELEASE: what
# gddctl ship wrote; else a small student is trained and shipped.
cpp: setup
	@test -n "$(ORT_INCLUDE)" || { echo "make cpp needs ORT_INCLUDE=DIR, the folder with onnxruntime_cxx_api.h"; exit 2; }
	$(BIN)/python -m tests.cpp_check "$(ORT_INCLUDE)" $(if $(RELEASE),"$(RELEASE)")

# A release's runner under emulated aarch64; as root, with Debian's debootstrap and qemu-user-static.
aarch64-check: setup
	$(BIN)/python -m tests.aarch64_check $(if $(RELEASE),"$(RELEASE)")

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
