# Two commands to start with: `make demo` and `make test`. `make help` lists the rest.
#
#   make llama2-7b/qa/dpo_bmc               builds what the recipe needs and isn't there yet, trains, evaluates
#   make llama2-7b/qa/dpo_bmc DRY_RUN=1     prints the commands only
#   make llama2-7b/qa/dpo_bmc SEEDS=1,2,3   the same with each seed: mean ± standard deviation
#   make llama2-7b/qa/analyze               the paper's figures from the setting's own runs
#   make llama3-8b/ultrafeedback/dpo/judge  the same, and has a judge compare its responses
#   make table1 [MODEL=smollm2-135m]        builds all that a table of the paper needs, and prints it
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

.PHONY: lab
lab: $(NEEDS)  ## The laboratory: every method, 10 seeds, a tiny model, some 30 minutes on 2 cores
	$(STAGE) scripts/lab.py recipes/lab/core.yaml

##@ Plan
# The script that a recipe is for, by its name.
stage_of = $(or $(patsubst bridge%,bridge,$(filter bridge%,$(notdir $(1)))),$(patsubst sample%,sample,$(filter sample%,$(notdir $(1)))),$(patsubst sft%,sft,$(filter sft%,$(notdir $(1)))),$(patsubst eval,evaluate,$(filter prepare eval analyze,$(notdir $(1)))),preference)
PAPERS   := $(patsubst %,%/dpo_bmc,$(filter-out smollm2%,$(SETTINGS)))

.PHONY: plan
plan: install  ## What RECIPE=llama2-7b/qa/dpo_bmc would cost; without one, each of the paper's settings
	@$(foreach r,$(or $(patsubst recipes/%,%,$(RECIPE:.yaml=)),$(PAPERS)),python scripts/$(call stage_of,$(r)).py recipes/$(r).yaml --dry_run &&) true

##@ Evaluate
MEASURED := $(OUT)/$(patsubst recipes/%,%,$(RECIPE:.yaml=))

.PHONY: lm_eval
lm_eval: $(NEEDS) $(if $(RECIPE),| $(MEASURED)/metrics.json)  ## lm-evaluation-harness (pip install '.[eval]') on RECIPE=llama2-7b/qa/dpo_bmc [TASKS=gsm8k,arc_easy]
	@test -n '$(RECIPE)' || { echo 'RECIPE: name the run, as in: make lm_eval RECIPE=llama2-7b/qa/dpo_bmc'; exit 2; }
	$(STAGE) scripts/harness.py --model_name_or_path $(MEASURED) --output_dir $(MEASURED)/eval $(if $(TASKS),--tasks $(TASKS))

##@ Development
.PHONY: install extras test-fast quality bench bench-bridging bench-generation style help clean
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

extras: install  ## Whether all extras of setup.py resolve together with the pins (asks the package index)
	@mkdir -p build && $(PIP) uv
	uv pip compile --quiet --python-version 3.11 --all-extras --constraint constraints.txt --output-file build/extras.txt setup.py

test-fast: install  ## The tests that take no more than seconds
	pytest -m "not slow"

quality: install  ## Lint, format and types, checked
	ruff check .
	ruff format --check .
	mypy

bench: install models/smollm2-135m/config.json  ## DPO-BMC steps against trl.DPOTrainer's: time, memory, FLOPs, tokens (an hour)
	@python benchmarks/train_step.py

bench-bridging: install  ## Bridging against a server on loopback: requests a second, memory (6 minutes)
	@python benchmarks/bridging.py

bench-generation: install models/smollm2-135m/config.json  ## Responses to ECQA= (a file of its test questions) against plain generate (10 minutes)
	@python benchmarks/generation.py $(ECQA)

style: install  ## Lint and format, mended
	ruff check --fix .
	ruff format .

clean:  ## Remove what the stages wrote
	rm -rf $(OUT)

help:  ## This list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z_-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nTables and figures of the paper (DRY_RUN=1 prints the commands only)\n'; printf '  make %s\n' $(TABLES)
	@printf '\nExperiments (make SETTING/RECIPE)\n'; $(foreach s,$(SETTINGS),printf '  make %s/dpo_bmc\n' $(s);)

# Experiments. A recipe says itself what must be there first: the folder that its data come from, and its model where that
# is made here. A stage runs if what it writes isn't there; to run one again, remove its folder.
RECIPES := $(patsubst recipes/%.yaml,%,$(wildcard recipes/*/*/*.yaml recipes/*/*/ablations/*.yaml))

# Prints RECIPE:FILE for each file that a recipe, or else what it extends, reads.
define FIND_READS
function plain(path) { while (sub(/[^\/]+\/\.\.\//, "", path)); return path }
/^extends: / { folder = FILENAME; sub(/[^\/]*$$/, "", folder); parent[FILENAME] = plain(folder $$2) }
/^model_name_or_path: / { model[FILENAME] = $$2 }
/^ +datasets:/ { mixes[FILENAME] = 1 }
/^ +- id: outputs\// { sub(/[^\/]*$$/, "stats.json", $$3); data[FILENAME] = data[FILENAME] " " $$3 }
END {
	for (i = 1; i < ARGC; i++) {
		reads = weights = known = ""
		for (file = ARGV[i]; file; file = parent[file]) {
			if (!known && mixes[file]) { known = 1; reads = data[file] }
			if (!weights) weights = model[file]
		}
		if (weights ~ /^outputs\//) reads = reads " " weights "/metrics.json"
		if (weights ~ /^models\//) reads = reads " " weights "/config.json"
		name = ARGV[i]; sub(/^recipes\//, "", name); sub(/\.yaml$$/, "", name)
		n = split(reads, paths, " ")
		for (j = 1; j <= n; j++) print name ":" paths[j]
	}
}
endef
READS := $(shell awk '$(FIND_READS)' $(wildcard recipes/*.yaml recipes/*/*.yaml recipes/*/*/*.yaml recipes/*/*/ablations/*.yaml))
reads  = $(patsubst outputs/%,$(OUT)/%,$(patsubst $(1):%,%,$(filter $(1):%,$(READS))))

# 1: recipe, 2: stage
define DATA_RULES
$(OUT)/$(1)/stats.json: | $(call reads,$(1))
	$$(STAGE) scripts/$(2).py recipes/$(1).yaml
.PHONY: $(1)
$(1): $(NEEDS) | $(OUT)/$(1)/stats.json
endef

# 1: recipe, 2: stage
define TRAINING_RULES
$(OUT)/$(1)/metrics.json: | $(call reads,$(1))
	$$(TRAIN) scripts/$(2).py recipes/$(1).yaml
.PHONY: $(1)
$(1): $(NEEDS) | $(OUT)/$(1)/$(if $(and $(SEEDS),$(filter preference,$(2))),seeds.json,eval/metrics.json)
endef

# 1: recipe; which seeds are there already, the script knows
define SEEDS_RULES
$(OUT)/$(1)/seeds.json: FORCE | $(call reads,$(1))
	$$(STAGE) scripts/preference.py recipes/$(1).yaml --seeds $(SEEDS) $(if $(filter-out python,$(LAUNCHER)),--launcher '"$(LAUNCHER)"')
endef
.PHONY: FORCE

# 1: setting
define EVAL_RULES
$(OUT)/$(1)/%/eval/metrics.json: | $(OUT)/$(1)/%/metrics.json $(filter %/stats.json,$(call reads,$(1)/eval))
	$$(STAGE) scripts/evaluate.py recipes/$(1)/eval.yaml --model_name_or_path $(OUT)/$(1)/$$* --output_dir $$(@D)
endef

# 1: setting that starts from a released SFT model
define RELEASED_SFT_RULES
$(OUT)/$(1)/sft/eval/metrics.json: | $(call reads,$(1)/eval)
	$$(STAGE) scripts/evaluate.py recipes/$(1)/eval.yaml
.PHONY: $(1)/sft
$(1)/sft: $(NEEDS) | $(OUT)/$(1)/sft/eval/metrics.json
endef

# 1: setting, 2: benchmark; the judge's answers are the setting's
define JUDGE_RULES
$(OUT)/$(1)/%/eval/$(2)/judged.json: | $(OUT)/$(1)/%/eval/metrics.json
	$$(STAGE) scripts/judge.py recipes/judge_$(2).yaml --responses $(OUT)/$(1)/$$*/eval --output_dir $$(@D) --replies $(OUT)/$(1)/judge.sqlite
endef

# 1: run
define JUDGED_RULES
.PHONY: $(1)/judge
$(1)/judge: $(NEEDS) | $(JUDGES:%=$(OUT)/$(1)/eval/%/judged.json)
endef
JUDGES := alpaca_eval arena_hard
CHATS  := $(filter %/ultrafeedback,$(SETTINGS))

of_stage = $(foreach r,$(RECIPES),$(if $(filter $(1),$(notdir $(r))),$(r)))
methods  = $(filter-out $(call of_stage,prepare sft% sample% bridge% eval analyze base),$(RECIPES))

$(foreach r,$(call of_stage,prepare),$(eval $(call DATA_RULES,$(r),prepare)))
$(foreach r,$(call of_stage,sample%),$(eval $(call DATA_RULES,$(r),sample)))
$(foreach r,$(call of_stage,bridge%),$(eval $(call DATA_RULES,$(r),bridge)))
$(foreach r,$(call of_stage,sft%),$(eval $(call TRAINING_RULES,$(r),sft)))
$(foreach r,$(methods),$(eval $(call TRAINING_RULES,$(r),preference)))
$(if $(SEEDS),$(foreach r,$(methods),$(eval $(call SEEDS_RULES,$(r)))))
$(foreach s,$(SETTINGS),$(eval $(call EVAL_RULES,$(s))))
$(foreach s,$(SETTINGS),$(if $(filter $(s)/sft,$(RECIPES)),,$(eval $(call RELEASED_SFT_RULES,$(s)))))

$(foreach s,$(CHATS),$(foreach j,$(JUDGES),$(eval $(call JUDGE_RULES,$(s),$(j)))))
$(foreach r,$(foreach s,$(CHATS),$(s)/sft $(filter $(s)/%,$(methods))),$(eval $(call JUDGED_RULES,$(r))))

# Ablations that differ from a recipe in one value: SETTING/ablations/…
#   dpo_bmc_VARIANT        DPO-BMC on the pairs of bridge_VARIANT (Tables 3 and 4; proportion_0.2, …: Figure 3)
#   dpo_bmc_delta_1.5      Figure 4
#   METHOD_split_2         Figure 5: the second sixth of the pairs by edit distance
PROPORTIONS := 0.0 0.2 0.4 0.6 0.8
DELTAS      := 1.0 1.5 2.0 2.5 3.0 3.5
SPLITS      := 1 2 3 4 5 6
variants     = $(patsubst $(1)/ablations/bridge_%,%,$(filter $(1)/ablations/bridge_%,$(RECIPES))) $(PROPORTIONS:%=proportion_%)

# The response cache of a setting's own, where its recipe names none that several share.
cache = $(if $(shell grep '^replies:' recipes/$(1)/bridge.yaml),,--replies $(OUT)/$(1)/replies.sqlite)

# 1: setting, 2: proportion; the response cache is that of `bridge`, so that nothing is asked twice
define PROPORTION_RULES
$(OUT)/$(1)/ablations/bridge_proportion_$(2)/stats.json: | $(call reads,$(1)/bridge)
	$$(STAGE) scripts/bridge.py recipes/$(1)/bridge.yaml --proportion $(2) $(call cache,$(1)) --output_dir $$(@D)
.PHONY: $(1)/ablations/bridge_proportion_$(2)
$(1)/ablations/bridge_proportion_$(2): $(NEEDS) | $(OUT)/$(1)/ablations/bridge_proportion_$(2)/stats.json
endef

# 1: setting, 2: method, 3: name of the variant, 4: what it reads, 5: what the command line says
define VARIANT_RULES
$(OUT)/$(1)/ablations/$(2)_$(3)/metrics.json: | $(4)
	$$(TRAIN) scripts/preference.py recipes/$(1)/$(2).yaml $(5) --output_dir $$(@D)
.PHONY: $(1)/ablations/$(2)_$(3)
$(1)/ablations/$(2)_$(3): $(NEEDS) | $(OUT)/$(1)/ablations/$(2)_$(3)/eval/metrics.json
endef

dataset := --dataset_mixture.datasets.0
$(foreach s,$(SETTINGS),$(foreach p,$(PROPORTIONS),$(eval $(call PROPORTION_RULES,$(s),$(p)))))
$(foreach s,$(SETTINGS),$(foreach v,$(call variants,$(s)),$(eval $(call VARIANT_RULES,$(s),dpo_bmc,$(v),$(OUT)/$(s)/ablations/bridge_$(v)/stats.json,$(dataset).id $(OUT)/$(s)/ablations/bridge_$(v)/train.jsonl))))
$(foreach s,$(SETTINGS),$(foreach d,$(DELTAS),$(eval $(call VARIANT_RULES,$(s),dpo_bmc,delta_$(d),$(call reads,$(s)/dpo_bmc),--bmc_delta $(d)))))
$(foreach s,$(SETTINGS),$(foreach m,dpo dpo_mc dpo_bc dpo_bmc,$(foreach n,$(SPLITS),$(eval $(call VARIANT_RULES,$(s),$(m),split_$(n),$(call reads,$(s)/$(m)),$(dataset).edit_split $(n)/6)))))

FIGURE3 := dpo_mc $(PROPORTIONS:%=ablations/dpo_bmc_proportion_%) dpo_bmc
FIGURE5 := $(foreach m,dpo dpo_mc dpo_bc dpo_bmc,$(SPLITS:%=ablations/$(m)_split_%))
ablations = $(patsubst %,ablations/dpo_bmc_%,$(call variants,$(1)) $(DELTAS:%=delta_%)) $(FIGURE5)
$(foreach s,$(CHATS),$(foreach r,$(call ablations,$(s)),$(eval $(call JUDGED_RULES,$(s)/$(r)))))

# A setting's own figures: what the ablations need and isn't there yet, then all figures that its runs allow, anew.
delta = $(shell sed -n 's/^bmc_delta: *\([0-9.]*\).*/\1/p' recipes/$(1)/dpo_mc.yaml)
figure4 = dpo $(patsubst %,ablations/dpo_bmc_delta_%,$(filter-out $(call delta,$(1)),$(DELTAS))) dpo_bmc
# 1: setting, 2: its runs; those of chat are measured by AlpacaEval 2's judge, at the end
measured = $(2:%=$(1)/%) $(if $(filter $(1),$(CHATS)),| $(2:%=$(OUT)/$(1)/%/eval/alpaca_eval/judged.json))
# 1: setting
define FIGURES_RULES
.PHONY: $(1)/analyze $(1)/figure3 $(1)/figure4 $(1)/figure5
$(1)/analyze: $(NEEDS) | $(call reads,$(1)/analyze) $(foreach m,dpo dpo_mc dpo_bc dpo_bmc,$(OUT)/$(1)/$(m)/metrics.json)
	$$(STAGE) scripts/analyze.py recipes/$(1)/analyze.yaml
$(1)/figure3: $(call measured,$(1),$(FIGURE3))
$(1)/figure4: $(call measured,$(1),$(call figure4,$(1)))
$(1)/figure5: $(call measured,$(1),$(FIGURE5))
endef
$(foreach s,$(SETTINGS),$(eval $(call FIGURES_RULES,$(s))))

# The paper's tables and figures: what they need and isn't there yet, then reported beside reproduced.
TABLES := table1 table2 table3 table4 table5 table10 table11 figure2 figure3 figure4 figure5 rewards bridging
OF     := $(if $(MODEL),--model $(MODEL))
.PHONY: $(TABLES)
$(TABLES): $(NEEDS)
	@runs=$$(python scripts/table.py $@ $(OF) --runs $(OUT) --targets $(if $(DRY_RUN),--dry_run)) && $(MAKE) --no-print-directory $(if $(DRY_RUN),-s) $$runs
	$(STAGE) scripts/table.py $@ $(OF) --runs $(OUT)

models/smollm2-135m/config.json:
	$(STAGE) scripts/fetch_smollm2.py models/smollm2-135m
