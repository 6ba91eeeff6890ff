# The one entrance. `make help` lists what there is.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ENGINE ?= auto
WORKERS ?= $(shell expr $$(nproc) + 1)
BASE_IMAGE ?= debian:trixie-slim
IMAGE ?= backupd

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench soak torture image emulated lock wheels clean

help: ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.runtime: requirements/runtime.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "backupd needs Python 3.11 or later: make PYTHON=python3.12 …"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	    { echo "Python's venv module is missing (Debian: apt install python3-venv)"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

demo: $(VENV)/.runtime ## a real backup and restore of four sample volumes (ENGINE=mounted|docker)
	@$(BIN)/python -m tools.demo --engine $(ENGINE)

test: $(VENV)/.dev ## all tests, with a real Docker Engine (installed and started privately where there is none)
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadgroup $(ARGS)

check: $(VENV)/.dev ## format, lint, types, layers, dead code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/vulture

format: $(VENV)/.dev ## put the code in order
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## measure against tar, zstd, restic and borg; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(VENV)/.dev ## many snapshots of services under load, restored and examined (ARGS='--rounds 20 --only postgres')
	$(BIN)/python -m tools.soak $(ARGS)

image: ## the image that ships (IMAGE=name:tag BASE_IMAGE=debian:trixie-slim PLATFORM=linux/arm64)
	docker build $(if $(PLATFORM),--platform $(PLATFORM)) --build-arg BASE_IMAGE=$(BASE_IMAGE) \
	    --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) -t $(IMAGE) .
	@docker image inspect --format '{{.Size}}' $(IMAGE) | awk '{printf "$(IMAGE): %.0f MB\n", $$1 / 1e6}'

emulated: $(VENV)/.dev ## the image for arm64, built and used under emulation (Debian as root; takes an hour)
	$(BIN)/python -m tools.emulated $(ARGS)

torture: $(VENV)/.dev ## the long random runs: kills, damages, stores, fuzzing (ARGS='--seed 7 --only kills --kills 300')
	$(BIN)/python -m tools.torture $(ARGS)

lock: $(VENV)/.dev ## resolve the dependencies anew
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header --no-annotate \
	    pyproject.toml -o requirements/runtime.txt
	$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header --no-annotate \
	    --group dev pyproject.toml -o requirements/dev.txt
	@printf 'setuptools>=77\n' | $(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-annotate - -o requirements/build.txt
	@$(MAKE) wheels

wheels: $(VENV)/.dev ## whether the image can be built for arm64: a wheel of every locked dependency
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
	    --platform manylinux2014_aarch64 --platform manylinux_2_28_aarch64 --python-version 3.13 --implementation cp \
	    --dest .build/wheels-arm64 -r requirements/runtime.txt
	@ls .build/wheels-arm64/*.whl | wc -l | xargs printf '%s wheels for arm64\n'

clean: ## remove what was built here
	rm -rf $(VENV) .build build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
