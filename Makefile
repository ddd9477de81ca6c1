# Every target sets up what it needs: a virtual environment with the pinned versions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ARVIZ1 := .venv-arviz1

# One numerical thread per process: the tests run in parallel, and results do not depend on cores.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MPLBACKEND := Agg

.PHONY: venv venv-arviz1 compare lint doctest test test-slow bench docs clean

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(INSTALLED)

# A second, small environment with ArviZ 1.x, which needs Python 3.12 or newer. Fails without one.
venv-arviz1: $(ARVIZ1)/.installed

$(ARVIZ1)/.installed: constraints-arviz1.txt tests/arviz_1x/install.py
	$(PYTHON) tests/arviz_1x/install.py $(ARVIZ1)
	touch $(ARVIZ1)/.installed

compare: venv
	$(BIN)/python -m pyro_klmodes compare models.eight_schools --out build/compare/eight_schools
	$(BIN)/python -m pyro_klmodes compare models.bimodal --out build/compare/bimodal

lint: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

doctest: venv
	$(BIN)/python -m pytest -q -n 2 --doctest-modules pyro_klmodes models

# The tests of a module share its fixtures, so they stay in one process.
test: lint doctest
	@$(MAKE) --no-print-directory venv-arviz1 || echo "No ArviZ 1.x here: its tests will be skipped."
	$(BIN)/python -m pytest -q -n 2 --dist loadscope -m "not slow" tests

test-slow: venv
	$(BIN)/python -m pytest -q -n 2 -m slow tests

# The new ratios are in build/engine.json; to store them: python -m benchmarks.engine --resume --update.
bench: venv
	$(BIN)/python -m benchmarks
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]' || echo "No NumPyro here: the grid runs without it."
	$(BIN)/python -m benchmarks.engine.agreement
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.engine.compare build/engine.json

# The site, in build/docs; KLMODES_TUTORIALS=short runs the tutorials with fewer steps. No network.
docs: venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	rm -rf build/docs build/docs-source
	mkdir -p build
	cp -RL docs build/docs-source
	MPLBACKEND=module://matplotlib_inline.backend_inline PYTHONPATH=$(CURDIR):$(CURDIR)/tutorials \
		$(BIN)/python -m sphinx -W --keep-going -E -j 2 -q -b html build/docs-source build/docs
	$(BIN)/python docs/offline.py build/docs
	@echo "The site is in build/docs/index.html."

clean:
	rm -rf $(VENV) $(ARVIZ1) build dist .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
