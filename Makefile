# make demo    from nothing to the paired table on libero_object, with the shipped weights
# make test    from nothing to green: lint, format, types, tests (TESTERS=4: by four processes in place of two)
# make test-families   the adapters of OpenVLA over a real Llama, in an environment of its own, .venv-families
# make bench   how fast the search is, and where the time goes
# make bench-mctx   the same beside mctx, which gets an environment of its own, .venv-mctx
# make test-lerobot   LeRobot's policies and lerobot-eval, in an environment of their own, .venv-lerobot
# make test-serving   the server with the real openpi-client and vla-eval, in an environment of their own, .venv-serving
# make setup   only the environment: .venv from constraints.txt, and the GL libraries

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

# OpenCV and MuJoCo load these; EGL draws the pictures.
GL_LIBRARIES := libGL.so.1 libEGL.so.1 libOpenGL.so.0 libgthread-2.0.so.0
GL_PACKAGES := libgl1 libegl1 libgl1-mesa-dri libopengl0 libglib2.0-0

# Processes that share the tests, a file each at a time; with a thread each, for threads that wait for one another's cores
# take several times as long.
TESTERS ?= 2

export LP_NUM_THREADS ?= 1

.PHONY: help setup demo test test-families test-lerobot test-serving bench bench-mctx lint format clean

help:
	@sed -n 's/^# \{0,1\}make/make/p' Makefile

setup: .venv/.graphics .venv/.installed

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' 2>/dev/null || \
	  { echo "forethought needs Python 3.11 or newer; say which with make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv

# The link lets pyright find `import forethought`: the root of the repository is the package.
define install
@echo "Installing forethought[$(1)] into .venv (a few minutes the first time) …"
@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(1)]'
@mkdir -p .venv/editable && ln -sfn ../.. .venv/editable/forethought
@touch $@
endef
comma := ,

.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	$(call install,libero$(comma)serve$(comma)video)

.venv/.installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(call install,libero$(comma)serve$(comma)video$(comma)encoders$(comma)verifier$(comma)dev)
	@touch .venv/.installed

.venv/.graphics: | .venv/bin/python
	@missing=; for library in $(GL_LIBRARIES); do \
	  $(BIN)/python -c "import ctypes, sys; ctypes.CDLL(sys.argv[1])" $$library 2>/dev/null || missing="$$missing $$library"; \
	done; \
	if [ -z "$$missing" ]; then touch $@; exit 0; fi; \
	echo "Missing graphics libraries:$$missing"; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  (apt-get install --yes --quiet $(GL_PACKAGES) || \
	  { apt-get update --quiet && apt-get install --yes --quiet $(GL_PACKAGES); }) >/dev/null && touch $@; \
	else \
	  echo "Install them and run make again:  sudo apt-get install $(GL_PACKAGES)"; exit 1; \
	fi

demo: setup
	$(BIN)/forethought eval --config-name demo

test: .venv/.graphics .venv/.installed-dev lint
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=$(TESTERS) --dist=loadfile

test-families: .venv-families/.installed
	.venv-families/bin/python -m pytest tests/families

# OpenVLA's code stops at transformers 4.51.
.venv-families/.installed: constraints-families.txt pyproject.toml
	$(PYTHON) -m venv .venv-families
	.venv-families/bin/pip install --quiet --disable-pip-version-check --requirement constraints-families.txt
	.venv-families/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

bench: .venv/.installed
	$(BIN)/forethought bench planner $(BENCH)

bench-mctx: .venv/.installed .venv-mctx/.installed
	$(BIN)/forethought bench planner peer=.venv-mctx/bin/python $(BENCH)

# JAX and its versions of NumPy and SciPy stay out of the environment that people use.
.venv-mctx/.installed: constraints-mctx.txt
	$(PYTHON) -m venv .venv-mctx
	.venv-mctx/bin/pip install --quiet --disable-pip-version-check --requirement constraints-mctx.txt
	@touch $@

test-lerobot: .venv/.graphics .venv-lerobot/.installed
	.venv-lerobot/bin/pytest tests/lerobot

.venv-lerobot/.installed: constraints-lerobot.txt plugins/lerobot/pyproject.toml $(wildcard plugins/lerobot/environment/*.py)
	$(PYTHON) -m venv .venv-lerobot
	@echo "Installing LeRobot into .venv-lerobot (a few minutes the first time) …"
	@.venv-lerobot/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement constraints-lerobot.txt
	@.venv-lerobot/bin/pip install --quiet --disable-pip-version-check --no-deps --editable . --editable plugins/lerobot
	@site=$$(.venv-lerobot/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	  cp plugins/lerobot/environment/torchvision_without_cuda.py $$site && \
	  echo 'import torchvision_without_cuda' > $$site/torchvision_without_cuda.pth
	@.venv-lerobot/bin/python plugins/lerobot/environment/libero_init_states.py
	@touch $@

test-serving: .venv-serving/.installed
	.venv-serving/bin/pytest tests/serving

.venv-serving/.installed: constraints-serving.txt
	$(PYTHON) -m venv .venv-serving
	@echo "Installing openpi-client and vla-eval into .venv-serving (a minute or two the first time) …"
	@.venv-serving/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement constraints-serving.txt
	@.venv-serving/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist outputs multirun *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
