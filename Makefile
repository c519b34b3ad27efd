# The course's commands. Each sets up what it needs by itself, once; `make help` lists them.
# Another Python, for the first set-up: make book PYTHON=python3.12

# The newest Python of the right age that is here; the set-up script says so if there is none.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& { echo $$p; break; }; done)
PY := .venv/bin/python
WORKERS ?= 2
export HF_HUB_DISABLE_TELEMETRY := 1
.DEFAULT_GOAL := help
.PHONY: help setup book lite pdf lab slides bench test lint notebooks chapter assignment grade clean

help:  ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup:
	@if [ -z "$(PYTHON)" ]; then \
		echo "Set-up stopped: no Python 3.11, 3.12 or 3.13 was found; install one (python.org has installers) and run the command again." >&2; \
		exit 1; fi
	@$(PYTHON) scripts/setup_venv.py

book: setup  ## run every chapter in a fresh kernel and build the website
	@$(PY) scripts/build_book.py --execute

pdf: setup  ## print the whole book as one PDF
	@$(PY) scripts/build_pdf.py

lite: setup  ## build the website with chapters that run in the reader's browser
	@$(PY) scripts/build_book.py --execute --lite

lab: setup  ## open JupyterLab at the first chapter
	@$(PY) -m jupyterlab notebooks/00_start_here.ipynb

slides: setup  ## turn the lessons into slide decks
	@$(PY) scripts/build_slides.py

bench: setup  ## measure the course's code against well-known libraries
	@$(PY) bench/run.py

# Two workers with one thread each are faster here than one worker with two.
QUIETLY := OMP_NUM_THREADS=1 COURSE_PROGRESS=0 COURSE_RECORD=0 COURSE_DEVICE=cpu HF_HUB_OFFLINE=1 \
	TOKENIZERS_PARALLELISM=false
PYTEST := $(PY) -m pytest -p no:cacheprovider -q
TEST := $(QUIETLY) $(PYTEST)

test: setup lint  ## unit tests, nbval on every notebook, the site in a real browser
	@$(PY) scripts/fetch_assets.py
	@echo "== Unit tests ==" && $(TEST) tests --ignore=tests/site -n $(WORKERS)
	@echo "== Notebooks: every output compared ==" && \
		$(QUIETLY) $(PY) scripts/cut_off.py $(PYTEST) --nbval notebooks \
		--nbval-sanitize-with tests/nbval.cfg --nbval-cell-timeout 600 -n $(WORKERS) --dist loadscope
	@echo "== Website and slides in a browser ==" && $(TEST) tests/site

lint: setup  ## formatting, style and the notebooks' conventions
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .
	@$(PY) scripts/notebooks.py check

notebooks: setup  ## run every notebook in place and keep the outputs
	@$(PY) scripts/notebooks.py run

chapter: setup  ## begin a new chapter: make chapter NAME=distillation
	@$(PY) scripts/new_chapter.py "$(NAME)" --title "$(TITLE)"

assignment: setup  ## a student's notebook of a chapter: make assignment CHAPTER=04
	@$(PY) scripts/assignments.py make "$(CHAPTER)" $(if $(OUT),--out "$(OUT)") \
		$(if $(POINTS),--points "$(POINTS)")

grade: setup  ## grade what came back: make grade CHAPTER=04 SUBMISSIONS=folder
	@$(PY) scripts/assignments.py grade "$(CHAPTER)" "$(SUBMISSIONS)" $(if $(OUT),--out "$(OUT)") \
		$(if $(SEED),--seed "$(SEED)") $(if $(TRUST),--trust)

clean:  ## remove what was built (the environment and the data stay)
	@rm -rf book/_build lessons/_build .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
	@echo "Removed what was built. For the environment and the data as well: rm -rf .venv .cache"
