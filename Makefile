# Two commands to start with: `make demo` and `make test`. `make help` lists the rest.
#
#   make llama2-7b/qa/dpo_bmc               builds what the recipe needs and isn't there yet, trains, evaluates
#   make llama2-7b/qa/dpo_bmc DRY_RUN=1     prints the commands only
#   make … LAUNCHER="accelerate launch --config_file recipes/accelerate_configs/zero3.yaml"

.DELETE_ON_ERROR:
.SECONDARY:
.DEFAULT_GOAL := help

VENV   ?= .venv
PYTHON ?= python3.11
OUT    := outputs
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# Training stages go through the launcher, the others are single processes.
LAUNCHER ?= python
RUN      := $(if $(DRY_RUN),@echo,)
TRAIN    := $(RUN) $(LAUNCHER)
STAGE    := $(RUN) python

NEEDS    := $(if $(DRY_RUN),,install)

SETTINGS := $(patsubst recipes/%/bridge.yaml,%,$(wildcard recipes/*/*/bridge.yaml))
DEMO     := smollm2-135m/math

##@ Start here
.PHONY: demo test
demo: install  ## From nothing to DPO and DPO-BMC models and a table: 10 minutes on 2 cores
	@$(MAKE) --no-print-directory $(foreach run,sft dpo dpo_bmc,$(DEMO)/$(run))
	@python scripts/report.py $(OUT)/$(DEMO)

test: install  ## The whole test suite
	pytest

##@ Development
.PHONY: install test-fast quality bench style help clean
install: $(VENV)/.installed  ## Virtual environment with the pinned dependencies (once)

# torch first and alone, since the range in setup.py would take whatever build is newest. Without a GPU it is PyTorch's
# CPU build, which uv knows where to find; where that place is out of reach, pip's own.
TORCH := $(shell grep '^torch==' constraints.txt)
PIP   := pip install --quiet --disable-pip-version-check --constraint constraints.txt

$(VENV)/.installed: setup.py constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned dependencies into $(VENV) (some minutes, once)"
	@$(if $(shell command -v nvidia-smi),false,$(PIP) uv && uv pip install --quiet --python $(VENV)/bin/python --torch-backend cpu $(TORCH) 2>/dev/null) || $(PIP) $(TORCH)
	@$(PIP) --editable '.[dev]'
	@touch $@

test-fast: install  ## The tests that take no more than seconds
	pytest -m "not slow"

quality: install  ## Lint, format and types, checked
	ruff check .
	ruff format --check .
	mypy

bench: install models/smollm2-135m/config.json  ## DPO-BMC steps against trl.DPOTrainer's: time, memory, FLOPs, tokens (an hour)
	@python benchmarks/train_step.py

style: install  ## Lint and format, mended
	ruff check --fix .
	ruff format .

clean:  ## Remove what the stages wrote
	rm -rf $(OUT)

help:  ## This list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nExperiments (make SETTING/RECIPE)\n'; $(foreach s,$(SETTINGS),printf '  make %s/dpo_bmc\n' $(s);)

# One chain a setting: prepare → (sft → sample →) bridge → a method → its evaluation. A stage runs if what it writes
# isn't there; to run one again, remove its folder.
define SETTING_RULES
$(OUT)/$(1)/prepare/stats.json:
	$$(STAGE) scripts/prepare.py recipes/$(1)/prepare.yaml

$(OUT)/$(1)/sft/metrics.json: | $(OUT)/$(1)/prepare/stats.json $(if $(filter smollm2-135m/%,$(1)),models/smollm2-135m/config.json)
	$$(TRAIN) scripts/sft.py recipes/$(1)/sft.yaml

$(OUT)/$(1)/sample/stats.json: | $(OUT)/$(1)/sft/metrics.json
	$$(STAGE) scripts/sample.py recipes/$(1)/sample.yaml

$(OUT)/$(1)/bridge/stats.json: | $(OUT)/$(1)/$(if $(wildcard recipes/$(1)/sft.yaml),sample,prepare)/stats.json
	$$(STAGE) scripts/bridge.py recipes/$(1)/bridge.yaml

$(OUT)/$(1)/%/eval/metrics.json: | $(OUT)/$(1)/%/metrics.json
	$$(STAGE) scripts/evaluate.py recipes/$(1)/eval.yaml --model_name_or_path $(OUT)/$(1)/$$* --output_dir $$(@D)

.PHONY: $(1)/prepare $(1)/sample $(1)/bridge
$(1)/prepare $(1)/sample $(1)/bridge: $(1)/%: $(NEEDS) | $(OUT)/$(1)/%/stats.json
endef

define METHOD_RULES
$(OUT)/$(1)/$(2)/metrics.json: | $(OUT)/$(1)/bridge/stats.json
	$$(TRAIN) scripts/preference.py recipes/$(1)/$(2).yaml
endef

define RUN_RULES
.PHONY: $(1)/$(2)
$(1)/$(2): $(NEEDS) | $(OUT)/$(1)/$(2)/eval/metrics.json
endef

methods = $(filter-out prepare sft sample bridge eval,$(patsubst recipes/$(1)/%.yaml,%,$(wildcard recipes/$(1)/*.yaml)))
runs    = $(call methods,$(1)) $(if $(wildcard recipes/$(1)/sft.yaml),sft)

$(foreach s,$(SETTINGS),$(eval $(call SETTING_RULES,$(s))))
$(foreach s,$(SETTINGS),$(foreach m,$(call methods,$(s)),$(eval $(call METHOD_RULES,$(s),$(m)))))
$(foreach s,$(SETTINGS),$(foreach r,$(call runs,$(s)),$(eval $(call RUN_RULES,$(s),$(r)))))

models/smollm2-135m/config.json:
	$(STAGE) scripts/fetch_smollm2.py models/smollm2-135m
