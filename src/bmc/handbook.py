"""Recipes of the alignment-handbook, of TRL, of SimPO and of the released BMC code in today's keys."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from .errors import UserError

logger = logging.getLogger(__name__)

RENAMED = {
    "torch_dtype": "dtype",
    "preprocessing_num_workers": "dataset_num_proc",
    "evaluation_strategy": "eval_strategy",
    "hub_model_revision": "hub_revision",
    "max_seq_length": "max_length",
    "max_unusable_replies": "max_unusable_responses",  # ours, before 0.2
    "replies": "response_cache",
    "warmup_ratio": "warmup_steps",  # transformers 5 reads a value below 1 as a share of the steps
}
SWITCHES: dict[str, tuple[str, dict[bool, str | None]]] = {  # what true and false mean today
    "use_flash_attention_2": ("attn_implementation", {True: "flash_attention_2", False: None}),
    "group_by_length": ("train_sampling_strategy", {True: "group_by_length", False: "random"}),
}
VALUES = {"packing_strategy": {"ffd": "bfd"}}  # of keys whose words have changed
DATA: dict[str, tuple[str, ...]] = {  # each way to name the data, with the keys that refine it
    "dataset_mixture": (),
    "dataset_mixer": ("dataset_splits", "dataset_configs"),
    "dataset_name": ("dataset_config", "dataset_train_split", "dataset_test_split"),
    "datasets": ("test_split_size",),
}
RIVALS = [("gamma_beta_ratio", "simpo_gamma"), ("dpo_bmc_delta", "bmc_delta")]  # two names for one thing
RELEASED = {  # what `dpo_bmc_delta` says of the trainer that it is written for, besides δ
    "token_weighting": "bmc",
    "weight_source": "each_model",
    "diff_algorithm": "difflib",
    "ignore_stop_words": True,
}
_CUT = "a prompt isn't shortened: a response is cut at max_length, and a pair whose prompt fills it is left out"
GONE = {  # keys that nothing reads any more, and what happens instead
    "base_model_revision": "",
    "dataset_streaming": "",
    "force_use_ref_model": "",
    "generate_during_eval": "",
    "ignore_bias_buffers": "",
    "is_encoder_decoder": "",
    "label_pad_token_id": "",
    "logging_dir": "",
    "max_completion_length": _CUT,
    "max_prompt_length": _CUT,
    "max_target_length": _CUT,
    "model_code_revision": "",
    "overwrite_output_dir": "",
    "padding_value": "",
    "push_to_hub_revision": "",
    "save_safetensors": "",
    "streaming": "",
    "text_column": "",
    "truncation_side": _CUT,
    "use_logits_to_keep": "",
}
EXPLAINED = {  # keys of other trainers and tools: what to write instead
    "cpo_alpha": "is CPOTrainer's weight of the likelihood, read with loss_type: simpo alone; for CPO use trl",
    "desirable_weight": "is KTOTrainer's, for responses without a pair; leave it out",
    "undesirable_weight": "is KTOTrainer's, for responses without a pair; leave it out",
    "finetuning_type": "is LLaMA-Factory's; write use_peft: true for LoRA, and nothing for full",
    "pref_beta": "is LLaMA-Factory's; write beta",
    "pref_ftx": "is LLaMA-Factory's; write rpo_alpha",
    "pref_loss": "is LLaMA-Factory's; write loss_type",
    "reference_free": "isn't there for DPO; take an objective without a reference, as loss_type: simpo",
    "rl_beta": "is Axolotl's; write beta",
    "sft_weight": "is SimPO's, beside gamma_beta_ratio or loss_type: simpo; for DPO write rpo_alpha",
}
OBJECTIVES = {  # of other methods that a recipe may be named after
    "orpo": "orpo (beta then is its λ)", "simpo": "simpo", "ipo": "ipo", "rdpo": "rdpo", "figa": "figa",
    "bco": "bco_pair", "nca": "nca_pair", "sppo": "sppo_hard", "apo": "apo_zero",
}  # fmt: skip
OTHER_METHODS = re.compile(
    r"(?<![a-z])(orpo|simpo|cpo|kto|ipo|r-?dpo|tdpo|figa|bco|nca|sppo|apo)(?![a-z]|_(?:gamma|alpha|beta|lambda))", re.I
)  # but not simpo_gamma, which a sweep's folders are named after


def today(values: dict[str, Any], where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return today's names for the keys of one file or of the command line, and where each of them comes from.

    A key that has no effect any more is left out with a warning.
    """
    new: dict[str, Any] = {}
    origin: dict[str, str] = {}

    def take(name: str, value: Any, key: str) -> None:
        if name == key or name not in values:
            new[name], origin[name] = value, where if name == key else f"{where} ({key})"

    for key, value in values.items():
        if key in GONE:
            instead = f"; {GONE[key]}" if GONE[key] else ""
            logger.warning("%s: %s: no longer has an effect; left out%s", where, key, instead)
        elif key in RENAMED:
            take(RENAMED[key], value, key)
        elif key in SWITCHES and isinstance(value, bool):
            take(SWITCHES[key][0], SWITCHES[key][1][value], key)
        elif key == "dpo_bmc_delta":
            take("bmc_delta", value, key)
            for name, habit in RELEASED.items():
                take(name, habit, key)
            habits = ", ".join(f"{name}: {str(habit).lower()}" for name, habit in RELEASED.items())
            logger.warning("%s: dpo_bmc_delta: read as bmc_delta with the released code's %s", where, habits)
        elif key == "report_to" and value is None:
            take(key, "none", key)
        elif key in VALUES and isinstance(value, str):
            take(key, VALUES[key].get(value, value), key)
        elif not (key == "reference_free" and value is False):
            take(key, value, key)
    return new, origin


def replace_rivals(values: dict[str, Any], chosen: str) -> None:
    """Remove what an ancestor says of the same thing under another name: the data, or a hyperparameter."""
    if chosen in DATA:
        for key, refinements in DATA.items():
            if key != chosen:
                for old in (key, *refinements):
                    values.pop(old, None)
    for pair in RIVALS:
        if chosen in pair:
            values.pop(pair[1 - pair.index(chosen)], None)


def objective(path: Path | None, values: dict[str, Any], origin: dict[str, str], faults: list[UserError]) -> None:
    """Translate the objective of a recipe for TRL's, SimPO's or the released BMC trainer into `loss_type` and its keys.

    Each translation prints a sentence. A recipe that names another method and has no `loss_type` is a fault, since
    the script that it was written for chose the objective.
    """

    def move(key: str, **new: Any) -> None:
        source = f"{origin.get(key, '')} ({key})"
        values.update(new)
        origin.update(dict.fromkeys(new, source))
        shown = ", ".join(f"{name}: {json.dumps(value)}" for name, value in new.items())
        logger.warning("%s: %s: read as %s", origin.get(key, ""), key, shown)

    try:
        _simpo(values, move)
        _older_losses(values, move)
        _likelihood(values, move)
    except _Mismatch as error:
        faults.append(UserError(origin.get(error.key, str(path)), f"{error.key}: {error}"))
        values.pop(error.key, None)
        return
    if values.get("loss_type") is None:
        values.pop("loss_type", None)
        where = str(path) if path else "command line"
        if named := _other_method(path, values):
            method, place = named
            ours = OBJECTIVES.get(method.lower().replace("-", ""))
            instead = f"loss_type: {ours}, or loss_type: sigmoid for DPO" if ours else "loss_type: sigmoid for DPO"
            faults.append(UserError(where, f"loss_type: is missing, and {place} speaks of {method}; write {instead}"))
        else:
            logger.warning("%s: loss_type: is missing; trains sigmoid (DPO)", where)


class _Mismatch(ValueError):
    """Keys that don't go together; `key` is the one to fix."""

    def __init__(self, key: str, what: str) -> None:
        self.key = key
        super().__init__(what)


def _number(values: dict[str, Any], key: str, default: float = 0.0) -> float:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Mismatch(key, f"must be a number, got {json.dumps(value, default=str)}")
    return float(value)


def _names(values: dict[str, Any]) -> list[Any]:
    given = values.get("loss_type") or []
    return list(given) if isinstance(given, list) else [given]


def _simpo(values: dict[str, Any], move: Callable[..., None]) -> None:
    """Return γ/β of SimPO's own code, whose `loss_type: sigmoid` is SimPO and whose β is 2 by default."""
    if "gamma_beta_ratio" not in values:
        return
    if _names(values) not in ([], ["sigmoid"], ["simpo"]):
        what = f"is SimPO's, and loss_type is {' + '.join(map(str, _names(values)))}; write loss_type: simpo"
        raise _Mismatch("gamma_beta_ratio", what)
    beta, ratio = _number(values, "beta", 2.0), _number(values, "gamma_beta_ratio")
    move("gamma_beta_ratio", loss_type="simpo", beta=beta, simpo_gamma=round(ratio * beta, 12))
    del values["gamma_beta_ratio"]


def _older_losses(values: dict[str, Any], move: Callable[..., None]) -> None:
    """Translate names of objectives in older versions of TRL, in the released BMC trainer, and ORPOTrainer's β."""
    names = _names(values)
    if "kto_pair" in names:
        what = "kto_pair has been removed from DPOTrainer; apo_zero is the nearest objective of pairs, or use trl's"
        raise _Mismatch("loss_type", f"{what} KTOTrainer")
    if "aot_pair" in names:
        move("loss_type", loss_type=[{"aot_pair": "aot_unpaired"}.get(name, name) for name in names])
    if names == ["r_dpo"]:  # the released code: β(Δ − (|y_w| − |y_l|))
        move("loss_type", loss_type="rdpo", rdpo_alpha=values.get("rdpo_alpha", -_number(values, "beta", 0.1)))
    if names == ["orpo"] and "beta" in values and "orpo_lambda" not in values:
        move("beta", orpo_lambda=values.pop("beta"))


def _likelihood(values: dict[str, Any], move: Callable[..., None]) -> None:
    """Translate likelihood terms: DPOTrainer's `rpo_alpha`, `sft_weight` of SimPO's code, CPOTrainer's `cpo_alpha`."""
    for key in ("rpo_alpha", "sft_weight", "cpo_alpha"):
        if key not in values or (key != "rpo_alpha" and _names(values) != ["simpo"]):
            continue
        names = _names(values) or ["sigmoid"]
        if values[key] is not None and (weight := _number(values, key)):
            if "sft" in names or "loss_weights" in values:
                raise _Mismatch(key, "adds sft to loss_type, which has weights of its own; write all in loss_weights")
            move(key, loss_type=[*names, "sft"], loss_weights=[1.0] * len(names) + [weight])
        del values[key]


def _other_method(path: Path | None, values: dict[str, Any]) -> tuple[str, str] | None:
    """Find another method than DPO that a recipe names, and where: in its path, its keys, or a comment on a trainer."""
    keys = [key for key in ("output_dir", "hub_model_id", "run_name") if values.get(key)]
    places = [(key, Path(str(values[key])).name) for key in keys]
    if path is not None and path.is_file():
        places.append(("the recipe's path", "/".join(path.parts[-2:])))
        text = path.read_text(encoding="utf-8")
        places.append(("a comment", " ".join(re.findall(r"#.*?(\w+)(?:Trainer|Config)\b", text))))
    for where, said in places:
        if found := OTHER_METHODS.search(said):
            return found[0], where
    return None


def mixture(
    values: dict[str, Any], origin: dict[str, str], faults: list[UserError], known: Collection[str]
) -> set[str]:
    """Turn `dataset_mixer`, `dataset_name` or TRL's `datasets` into a `dataset_mixture`.

    Changes values and origins in place.

    Returns:
        The keys whose faults are reported.
    """
    for name, refinements in DATA.items():
        for key in refinements:
            if key in values and name not in values:
                faults.append(
                    UserError(origin[key], f"{key}: refines {name}, which the recipe doesn't have; {_instead(key)}")
                )
                del values[key]
    given = [key for key in DATA if key in values]
    if not given or given == ["dataset_mixture"]:
        return set()
    keys = [key for name in given for key in (name, *DATA[name])]
    try:
        if len(given) > 1:
            raise ValueError(f"{given[0]}: there is {given[1]} as well; keep one of them")
        made = _MIXTURES[given[0]](values)
    except ValueError as error:
        key = str(error).partition(":")[0]
        faults.append(UserError(origin.get(key, ""), str(error)))
        return {"dataset_mixture", *keys}
    source = f"{origin[given[0]]} ({given[0]})"
    if given == ["dataset_mixer"]:
        _older_meaning(values, origin, source, known)
    for key in keys:
        values.pop(key, None)
    values["dataset_mixture"], origin["dataset_mixture"] = made, source
    return set()


def _instead(key: str) -> str:
    return "write it as dataset_mixture.test_split_size" if key == "test_split_size" else "remove it"


def _older_meaning(values: dict[str, Any], origin: dict[str, str], source: str, known: Collection[str]) -> None:
    """Keep what the handbook did by default while it had `dataset_mixer`, and say what is done in another way."""
    if "auto_insert_empty_system_msg" in known and "auto_insert_empty_system_msg" not in values:
        values["auto_insert_empty_system_msg"], origin["auto_insert_empty_system_msg"] = True, source
    if any(isinstance(weight, int | float) and weight < 1 for weight in values["dataset_mixer"].values()):
        logger.warning(
            "%s: a weight below 1 takes a random share of the rows; the handbook took the first ones", source
        )
    if "assistant_only_loss" in known and "assistant_only_loss" not in values:
        what = "the loss covers the responses; the handbook's covered every token: assistant_only_loss: false"
        logger.warning("%s: %s", source, what)


def _mixture_of_mixer(values: dict[str, Any]) -> dict[str, Any]:
    """Rewrite `dataset_mixer` (id → weight), `dataset_splits` and `dataset_configs`.

    As in the handbook, a split is for training if its name contains "train" and for evaluation if "test".
    """
    mixer, configs = values["dataset_mixer"], values.get("dataset_configs")
    splits = values.get("dataset_splits", ["train", "test"])
    if not isinstance(mixer, dict):
        raise ValueError("dataset_mixer: must map data set ids to weights")
    if configs is not None and (not isinstance(configs, list) or len(configs) != len(mixer)):
        raise ValueError("dataset_configs: must list one configuration for each data set of dataset_mixer")
    if not isinstance(splits, list) or not all("train" in str(split) or "test" in str(split) for split in splits):
        raise ValueError("dataset_splits: must list splits with 'train' or 'test' in their names")
    mixture: dict[str, Any] = {"datasets": [], "test_datasets": []}
    for split in splits:
        part = "datasets" if "train" in str(split) else "test_datasets"
        for index, (name, weight) in enumerate(mixer.items()):
            dataset = {"id": name, "split": split, "weight": weight if part == "datasets" else 1.0}
            mixture[part].append(dataset | ({"config": configs[index]} if configs else {}))
    return mixture


def _mixture_of_name(values: dict[str, Any]) -> dict[str, Any]:
    """Read `dataset_name`, `dataset_config` and the two splits; the test split is read if the recipe evaluates."""
    dataset = {"id": values["dataset_name"], "config": values.get("dataset_config")}
    mixture = {"datasets": [{**dataset, "split": values.get("dataset_train_split", "train")}]}
    if values.get("eval_strategy", "no") != "no":
        mixture["test_datasets"] = [{**dataset, "split": values.get("dataset_test_split", "test")}]
    return mixture


def _mixture_of_list(values: dict[str, Any]) -> dict[str, Any]:
    """TRL's `datasets` (a list of `load_dataset`'s arguments) and `test_split_size`."""
    if not isinstance(values["datasets"], list):
        raise ValueError("datasets: must be a list, as in `datasets: [{path: trl-lib/ultrafeedback_binarized}]`")
    parts = [part for number, given in enumerate(values["datasets"]) for part in _of_load_dataset(given, number)]
    size = values.get("test_split_size")
    return {"datasets": parts, **({} if size is None else {"test_split_size": size})}


def _of_load_dataset(given: Any, number: int) -> list[dict[str, Any]]:
    """Return the data sets that an entry of TRL's `datasets` names: one, or one for each of its files."""
    if not isinstance(given, dict) or not isinstance(given.get("path"), str):
        raise ValueError(f"datasets: entry {number} names no path, as in {{path: trl-lib/ultrafeedback_binarized}}")
    for key, instead in _LOAD_DATASET.items():
        if given.get(key) is not None:
            raise ValueError(f"datasets: entry {number}: {key} isn't read; {instead}")
    unknown = set(given) - {"path", "name", "data_files", "split", "columns", *_LOAD_DATASET}
    if unknown:
        raise ValueError(f"datasets: entry {number}: {min(unknown)} is no key of TRL's; remove it")
    split, files = given.get("split") or "train", given.get("data_files")
    files = files.get(split) if isinstance(files, dict) else files
    names = [given["path"]] if files is None else files if isinstance(files, list) else [files]
    part = {"config": given.get("name"), "split": split, "columns": given.get("columns")}
    return [{"id": name, **part} for name in names]


_LOAD_DATASET = {  # arguments that TRL hands to `load_dataset`, and what to write in their place
    "data_dir": "give the folder as path",
    "fraction": "write dataset_mixture: {datasets: [{id: …, weight: 0.5}]}, a share of the data set's own rows",
}
_MIXTURES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "dataset_mixer": _mixture_of_mixer,
    "dataset_name": _mixture_of_name,
    "datasets": _mixture_of_list,
}
