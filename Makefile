# make run    set up, import the sample corpora, answer a question from each, open the web UI
# make test   set up, run every test
# make lint   ruff and mypy
# make bench  time it against what people would use instead, and keep the results in benchmarks/results
# make clean  remove the environment, the sample database and the indexes

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# Exactly one build of FAISS may be installed: both packages are the module `faiss`.
FAISS := $(if $(shell nvidia-smi -L 2>/dev/null | grep GPU),gpu,cpu)

SAMPLES := general:data/general.csv open-domain:data/open_domain.csv finance:data/finance.csv

.PHONY: run samples test lint bench setup clean
.DEFAULT_GOAL := run

run: setup samples
	@$(BIN)/faqsearch ui

# Each sample is imported once, and answers a question then; what was edited since stays as it is.
samples: setup
	@for sample in $(SAMPLES); do \
	  name=$${sample%%:*}; \
	  if ! $(BIN)/faqsearch corpus show $$name >/dev/null 2>&1; then \
	    $(BIN)/faqsearch import $${sample#*:} --corpus $$name || exit 1; \
	    case $$name in \
	      general) query='刚拍的还没给钱，不要了怎么弄掉';; \
	      open-domain) query='驾照下个月到期，咋换，要跑车管所么';; \
	      finance) query='房贷提前还一部分，缩年限好还是少月供好';; \
	    esac; \
	    echo "> $$query"; $(BIN)/faqsearch search "$$query" --corpus $$name -k 1 || exit 1; echo; \
	  fi; \
	done
	@$(BIN)/faqsearch rebuild --all

test: $(VENV)/dev
	$(BIN)/python -m pytest

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/bench
	@for benchmark in encoding query 'importing --large 1000000' rebuilding scale 'peers --questions 10000'; do \
	  $(BIN)/python -m benchmarks.$$benchmark || exit 1; \
	done

setup: $(VENV)/faiss-$(FAISS)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "faqsearch needs Python 3.10 or newer; name one with: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The marker says which build is there; a machine that gained or lost its GPU gets the other one instead.
$(VENV)/faiss-$(FAISS): $(BIN)/python pyproject.toml
	@rm -f $(VENV)/faiss-*
	@$(BIN)/pip uninstall --quiet --yes faiss-cpu faiss-gpu 2>/dev/null || true
	$(BIN)/pip install --quiet --editable '.[$(FAISS)]' || { test $(FAISS) = gpu && \
	  echo 'the GPU build of FAISS cannot be installed here; taking the CPU build' && \
	  $(BIN)/pip install --quiet --editable '.[cpu]'; }
	@touch $@

$(VENV)/dev: $(VENV)/faiss-$(FAISS)
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

$(VENV)/bench: $(VENV)/faiss-$(FAISS)
	$(BIN)/pip install --quiet --editable '.[bench]'
	@touch $@

clean:
	rm -rf $(VENV) data/*.sqlite3 data/*.sqlite3-* indexes/*/
