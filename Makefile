# Everything from a fresh checkout: `make demo` or `make test`. Needs Python 3.11 to 3.13 with venv and pip, nothing else.
.DEFAULT_GOAL := help
.PHONY: help demo test test-quick test-deployment lint docs-site constraints clean federation deploy-keys images sbom sbom-image

PYTHON ?= python3
NODES ?= 3
DATA := $(or $(WINNOW_DATA),data)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
BIN := .venv/bin
# Exists only after a complete installation; its name records the Python version.
INSTALLED := .venv/installed-$(VERSION)
USABLE = { [ "$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = "$(VERSION)" ] && \
	{ $(BIN)/python -m uv --version || $(BIN)/python -m pip --version; }; } >/dev/null 2>&1

help:
	@echo "make demo         set up, then train the demo federations"
	@echo "make test         set up, then run linters, type checker and all tests"
	@echo "make test-quick   set up, then run unit and property tests only"
	@echo "make test-deployment  set up, then run the tests with real processes and containers only"
	@echo "make lint         set up, then only linters and type checker"
	@echo "make docs-site    set up, then build the documentation as a site in site/"
	@echo "make federation   set up, then run the demo's federation with real nodes on this machine: NODES=3"
	@echo "make deploy-keys  set up, then make certificates and node keys for docker compose: NODES=3 HOST=fl.example.org"
	@echo "make images       build the image of docker-compose.yml"
	@echo "make sbom         list the packages of the environment in CycloneDX's format; make sbom-image: those of the image"
	@echo "make constraints  pin the versions that are installed now"
	@echo "make clean        remove the environment and all caches (not runs/ or data/)"
	@echo "Another Python:   make test PYTHON=python3.12"

# Its second half needs photographs, and none come with Winnow: it runs where CIFAR-10 lies.
demo: $(INSTALLED)
	$(BIN)/winnow run demo
	@if [ -d "$(DATA)/cifar-10-batches-py" ]; then \
		echo; echo "Second half: photographs of CIFAR-10 from $(DATA)"; $(BIN)/winnow run photos; \
	else \
		echo "The second half, on real photographs, needs CIFAR-10: no folder cifar-10-batches-py in $(DATA) (set WINNOW_DATA)"; fi

federation: $(INSTALLED)
	$(BIN)/winnow federation run --nodes $(NODES) num-server-rounds=3

deploy-keys: $(INSTALLED)
	$(BIN)/winnow keys create --nodes $(NODES) $(addprefix --host ,$(HOST)) --env .env

images:
	docker compose build

# What is installed, for those who compare it with lists of vulnerabilities. The tool lives in an environment of its own.
SBOM := $(BIN)/python -m uv tool run --from cyclonedx-bom==7.5.0 cyclonedx-py
IMAGE := $(or $(WINNOW_IMAGE),winnow:latest)
IN_IMAGE := docker run --rm --network none $(IMAGE)
LISTED := from importlib.metadata import distributions; \
	print(*sorted({f"{found.name}=={found.version}" for found in distributions()}), sep="\n")

sbom: $(INSTALLED)
	@mkdir -p sbom
	$(SBOM) environment --output-reproducible --pyproject pyproject.toml --output-file sbom/environment.json .venv

sbom-image: $(INSTALLED)
	@mkdir -p sbom
	$(IN_IMAGE) python -c '$(LISTED)' > sbom/image-python.txt
	$(IN_IMAGE) dpkg-query --show > sbom/image-debian.txt
	$(SBOM) requirements --output-reproducible --output-file sbom/image.json sbom/image-python.txt

# Bytecode is kept, whatever the machine's default: else each of the many processes that tests start compiles torch anew.
# One thread for each test process: two that both want all cores wait for each other.
test test-quick test-deployment: export PYTHONDONTWRITEBYTECODE =
test test-quick test-deployment: export OMP_NUM_THREADS = 1

test: $(INSTALLED) lint
	$(BIN)/python -m pytest --numprocesses 2

test-quick: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 2 tests/unit tests/property

test-deployment: $(INSTALLED)
	$(BIN)/python -m pytest tests/simulation tests/deployment

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs-site: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

# uv and not pip, because pip would take a torch for CPUs from a local folder where there is one, which breaks
# torchvision. An environment that an interruption left half-made is completed, one of another Python made again.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Winnow needs Python 3.11 to 3.13, and $(PYTHON) is '$(VERSION)': make ... PYTHON=python3.12" >&2; exit 1; }
	@rm -f .venv/installed-*
	@$(USABLE) || $(PYTHON) -m venv --clear .venv || \
		{ echo "Python's venv is missing: apt-get install python3-venv, or your system's equivalent" >&2; exit 1; }
	@$(BIN)/python -m uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/python -m uv pip install --python $(BIN)/python --constraint constraints.txt --editable ".[simulation,report,parquet,privacy,tracking,mlflow,wandb,onnx,docs,partitions,encoders,dev]"
	@touch $@

constraints: $(INSTALLED)
	$(BIN)/python -m uv pip freeze --python $(BIN)/python --exclude-editable | grep -vE '^(nvidia-|cuda-|triton)' > .venv/pinned
	{ echo "# Versions known to work together; made by 'make constraints'. GPU packages follow from torch and the platform."; \
		cat .venv/pinned; } > constraints.txt
	@touch $(INSTALLED)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
