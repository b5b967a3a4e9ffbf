# One vocabulary for people and CI. `make setup` is run by every target that needs it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.facerec-setup
DATA   ?=
OUT    ?= demo_out

.PHONY: setup demo test lint types layers unit bench format clean

setup: $(STAMP)

# Repeatable: done again only when setup.py has changed. torch and torchvision are installed by
# plain name in one pip call, because the torchvision wheels work only with the torch build that
# they were made for. insightface pulls opencv-python and albumentations its headless twin; both
# own cv2/ and the first needs libGL: the last step leaves the headless one alone.
$(STAMP): setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "facerec needs Python 3.10 or later; name one with: make setup PYTHON=python3.12"; exit 2; }
	@echo "== setup 1/4: virtual environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "== setup 2/4: torch and torchvision together (the longest step, some GB)"
	@$(BIN)/python -m pip install --quiet torch torchvision
	@echo "== setup 3/4: facerec and what it needs, editable"
	@$(BIN)/python -m pip install --quiet -e ".[dev]"
	@echo "== setup 4/4: headless cv2 alone (no libGL needed)"
	@$(BIN)/python -m pip uninstall --quiet --yes opencv-python opencv-python-headless
	@$(BIN)/python -m pip install --quiet --no-deps opencv-python-headless
	@$(BIN)/python -c "import cv2, torch, torchvision; from facerec import __version__; \
	  assert cv2.version.headless, 'cv2 is not the headless build'; \
	  print('== ready: facerec', __version__, '| torch', torch.__version__, '| torchvision', \
	  torchvision.__version__, '| cv2', cv2.__version__)"
	@touch $(STAMP)

demo: setup
	$(BIN)/facerec demo --out $(OUT) $(if $(DATA),--data "$(DATA)")

test: lint types layers unit

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

layers: setup
	$(BIN)/lint-imports

# One thread a test process: two processes on two cores, no thread fights another.
unit: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

bench: setup
	$(BIN)/python -m eval.bench.embed
	$(BIN)/python -m eval.bench.loader
	$(BIN)/python -m eval.bench.degrade
	$(BIN)/python -m eval.bench.train_step

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(OUT) build dist .mypy_cache .ruff_cache .pytest_cache *.egg-info
