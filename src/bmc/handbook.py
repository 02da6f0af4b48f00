"""The keys of the alignment-handbook's recipes in today's words, where TRL or transformers have changed them."""

from __future__ import annotations

import logging
from typing import Any

from .errors import Fault

logger = logging.getLogger(__name__)

RENAMED = {
    "torch_dtype": "dtype",
    "preprocessing_num_workers": "dataset_num_proc",
    "evaluation_strategy": "eval_strategy",
    "hub_model_revision": "hub_revision",
    "max_seq_length": "max_length",
    "warmup_ratio": "warmup_steps",  # transformers 5 reads a value below 1 as a share of the steps
}
SWITCHES: dict[str, tuple[str, dict[bool, str | None]]] = {  # what true and false mean today
    "use_flash_attention_2": ("attn_implementation", {True: "flash_attention_2", False: None}),
    "group_by_length": ("train_sampling_strategy", {True: "group_by_length", False: "random"}),
}
DATA: dict[str, tuple[str, ...]] = {  # each way to name the data, with the keys that refine it
    "dataset_mixture": (),
    "dataset_mixer": ("dataset_splits", "dataset_configs"),
    "dataset_name": ("dataset_config", "dataset_train_split", "dataset_test_split"),
}
GONE = {  # keys that nothing reads any more
    "auto_insert_empty_system_msg",
    "base_model_revision",
    "generate_during_eval",
    "logging_dir",
    "max_prompt_length",
    "model_code_revision",
    "overwrite_output_dir",
    "push_to_hub_revision",
    "save_safetensors",
    "text_column",
    "truncation_side",
}


def today(values: dict[str, Any], where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Today's names for the keys of one file or of the command line, and where each of them comes from.

    A key that has no effect any more is left out with a warning.
    """
    new: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for key, value in values.items():
        name, source = key, where
        if key in GONE:
            logger.warning("%s: %s: no longer has an effect; left out", where, key)
            continue
        if key in RENAMED:
            name = RENAMED[key]
        elif key in SWITCHES and isinstance(value, bool):
            name, value = SWITCHES[key][0], SWITCHES[key][1][value]
        if name != key:
            if name in values:
                continue
            source = f"{where} ({key})"
        new[name], origin[name] = value, source
    return new, origin


def drop_other_data(values: dict[str, Any], chosen: str) -> None:
    """Removes the data that an ancestor names in another way."""
    for key, refinements in DATA.items():
        if key != chosen:
            for old in (key, *refinements):
                values.pop(old, None)


def mixture(values: dict[str, Any], origin: dict[str, str], faults: list[Fault]) -> set[str]:
    """Turns `dataset_mixer` or `dataset_name` into a `dataset_mixture`; returns the keys whose faults are told."""
    for name, refinements in DATA.items():
        for key in refinements:
            if key in values and name not in values:
                faults.append(Fault(origin[key], f"{key}: refines {name}, which the recipe doesn't have; remove it"))
                del values[key]
    given = [key for key in DATA if key in values]
    if not given or given == ["dataset_mixture"]:
        return set()
    keys = [key for name in given for key in (name, *DATA[name])]
    try:
        if len(given) > 1:
            raise ValueError(f"{given[0]}: there is {given[1]} as well; keep one of them")
        made = _mixture_of_mixer(values) if given == ["dataset_mixer"] else _mixture_of_name(values)
    except ValueError as error:
        key = str(error).partition(":")[0]
        faults.append(Fault(origin.get(key, ""), str(error)))
        return {"dataset_mixture", *keys}
    source = f"{origin[given[0]]} ({given[0]})"
    for key in keys:
        values.pop(key, None)
    values["dataset_mixture"], origin["dataset_mixture"] = made, source
    return set()


def _mixture_of_mixer(values: dict[str, Any]) -> dict[str, Any]:
    """`dataset_mixer` (id → weight), `dataset_splits` and `dataset_configs`.

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
    """`dataset_name`, `dataset_config` and the two splits; the test split is read if the recipe evaluates."""
    dataset = {"id": values["dataset_name"], "config": values.get("dataset_config")}
    mixture = {"datasets": [{**dataset, "split": values.get("dataset_train_split", "train")}]}
    if values.get("eval_strategy", "no") != "no":
        mixture["test_datasets"] = [{**dataset, "split": values.get("dataset_test_split", "test")}]
    return mixture
