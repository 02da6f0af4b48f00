# Two commands to start with: `make demo` and `make test`. `make help` lists the rest.
#   make llama2-7b/qa/dpo_bmc               builds what the recipe needs and isn't there yet, trains, evaluates
#   make llama2-7b/qa/dpo_bmc DRY_RUN=1     prints the commands only
#   make llama2-7b/qa/dpo_bmc SEEDS=1,2,3   trains and evaluates with each seed: mean ± standard deviation
#   make llama3-8b/ultrafeedback/dpo/judge  also has a judge compare its responses
#   make llama2-7b/qa/review                opens the edits of its bridging in the browser, to accept, reject or correct
#   make table1 [MODEL=smollm2-135m]        builds all that a table of the paper needs, and prints it
#   make … LAUNCHER="accelerate launch --config_file recipes/accelerate_configs/zero3.yaml"
# What isn't below is forwarded to `bmc run` (bmc run --help).
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
VENV  ?= .venv
OUT   := outputs
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

DRY   := $(or $(DRY_RUN),$(findstring n,$(filter-out --%,$(firstword $(MAKEFLAGS)))))
BMC   := python -m bmc
NAME  := $(patsubst recipes/%,%,$(RECIPE:.yaml=))
FLAGS := --outputs $(OUT) $(if $(DRY),--dry_run) $(if $(SEEDS),--seeds '$(SEEDS)') $(if $(LAUNCHER),--launcher '$(LAUNCHER)') $(if $(MODEL),--model $(MODEL))
# A dry run installs nothing where the package can be imported.
READY := $(if $(DRY),python -c 'import bmc.commands' 2>/dev/null ||) $(MAKE) --no-print-directory install >&2

.NOTPARALLEL:
.DEFAULT:
	+@$(READY) && $(BMC) run $@ $(FLAGS)

.PHONY: demo test test-fast lab plan lm_eval install extras quality style bench bench-bridging bench-generation clean help

demo:  ## Train and compare SFT, DPO and DPO-BMC with a 135M model: 10 minutes on 2 cores
	+@$(READY) && $(BMC) run $(addprefix smollm2-135m/math/,sft dpo dpo_bmc) $(FLAGS)
	@$(if $(DRY),echo) $(BMC) report $(OUT)/smollm2-135m/math

test: install  ## Run the whole test suite
	pytest -n auto --dist loadfile --no-loadscope-reorder
test-fast: install  ## Run the fast tests
	pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow"

lab:  ## Compare every method over 10 seeds with tiny models: 30 minutes on 2 cores
	@$(READY) && $(if $(DRY),echo) python scripts/lab.py recipes/lab/core.yaml

plan:  ## Memory, time and cost of RECIPE=llama2-7b/qa/dpo_bmc (default: DPO-BMC of all models); FIT=RTX4090-24GB makes it fit a card
	@$(READY) && $(BMC) plan $(or $(NAME:%=recipes/%.yaml),$(filter-out recipes/smollm2%,$(wildcard recipes/*/*/dpo_bmc.yaml))) $(if $(FIT),--fit $(FIT))

lm_eval:  ## Run lm-evaluation-harness (pip install '.[eval]') on RECIPE=llama2-7b/qa/dpo_bmc [TASKS=gsm8k,arc_easy]
	@test -n '$(RECIPE)' || { echo 'RECIPE: name the run, as in: make lm_eval RECIPE=llama2-7b/qa/dpo_bmc'; exit 2; }
	@$(READY) && $(BMC) run $(OUT)/$(NAME)/metrics.json $(FLAGS)
	$(if $(DRY),@echo) python scripts/harness.py --model_name_or_path $(OUT)/$(NAME) --output_dir $(OUT)/$(NAME)/eval $(if $(TASKS),--tasks $(TASKS))

install: $(VENV)/.installed  ## Make .venv with the pinned dependencies (once)
# torch first and alone, since the range in setup.py would take whatever build is newest. Without a GPU it is PyTorch's
# CPU build, which uv knows where to find; where that place is out of reach, pip's own.
TORCH := $(shell grep '^torch==' constraints.txt)
PIP   := pip install --quiet --disable-pip-version-check --constraint constraints.txt
$(VENV)/.installed: setup.py constraints.txt
	@test -x $(VENV)/bin/python || { python=$$(PYTHON='$(PYTHON)' sh .ci/find_python) && $$python -m venv $(VENV); }
	@echo "installing the pinned dependencies into $(VENV) (some minutes, once)"
	@$(if $(shell command -v nvidia-smi),false,$(PIP) uv && uv pip install --quiet --python $(VENV)/bin/python --torch-backend cpu $(TORCH) 2>/dev/null) || $(PIP) $(TORCH)
	@$(PIP) --editable '.[dev]'
	@touch $@
extras: install  ## Check that all extras resolve with the pins (asks the package index)
	@mkdir -p build && $(PIP) uv && uv pip compile --quiet --python-version 3.11 --all-extras --constraint constraints.txt --output-file build/extras.txt setup.py
quality: install  ## Check lint, format and types
	ruff check . && ruff format --check . && mypy
style: install  ## Fix lint and format
	ruff check --fix . && ruff format .

bench: install models/smollm2-135m/config.json  ## Measure DPO-BMC steps against trl.DPOTrainer's: time, memory, FLOPs, tokens (an hour)
	@python benchmarks/train_step.py
bench-bridging: install  ## Measure bridging against a local server: requests a second, memory (6 minutes)
	@python benchmarks/bridging.py
bench-generation: install models/smollm2-135m/config.json  ## Measure generation for ECQA=FILE (its test questions) against plain generate (10 minutes)
	@python benchmarks/generation.py $(ECQA)
clean:  ## Remove what the stages wrote
	rm -rf $(OUT)

help:  ## Print this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z_-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nTables and figures of the paper (DRY_RUN=1 prints the commands only)\n  make %s\n' "$$(sed -n 's/^\([a-z][a-z0-9]*\):$$/\1/p' recipes/reported.yaml | paste -sd' ' -)"
	@printf '\nExperiments (make MODEL/TASK/RECIPE, MODEL/TASK/RECIPE/judge, and of MODEL/TASK: review, analyze, figure3 to figure5)\n'; printf '  make %s\n' $(patsubst recipes/%.yaml,%,$(wildcard recipes/*/*/dpo_bmc.yaml))
