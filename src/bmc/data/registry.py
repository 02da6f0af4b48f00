"""Known data sets: where each lies, and which loader converts its rows.

QA and math rows get `prompt`, `completion` (the SFT target) and `answer`; chat rows get `messages`, a pair, or a
`prompt` and perhaps a `reference`. `bmc.data.loading` reads them. Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from . import datasets as raw
from .human_feedback import corrections, oasst, ratings
from .lab import LAB, generate_lab, lab
from .schema import Row

GENERATORS = {raw.GENERATOR: raw.generate, LAB: generate_lab}  # (parameters, rows) → raw rows

REPOSITORY = "https://github.com/YJiangcm/BMC"
ARC = "allenai/ai2_arc"
_PAIR = "chosen and rejected, lists of messages"
_OWN = ", or problem, solution and answer"
_CORRECTIONS = "prompt (or messages), answer and correction"
_RATINGS = "prompt, and responses with scores or ranks; or response and score; or response_1, response_2 and preference"


@dataclass(frozen=True)
class DatasetSpec:
    """Describe a known data set."""

    task: str  # `qa`, `math` or `chat`; decides how answers are scored
    # converts a raw row to ours; raises KeyError or ValueError for a row of unknown shape
    to_row: Callable[[Row], Row | list[Row]]
    wants: str  # the raw columns that `to_row` knows, for fault messages
    hub_id: str | None = None  # its id on the Hub; None if a recipe must give `id`
    hub_config: str | None = None  # the Hub's configuration to load unless the recipe names one
    # name of a JSON file in that repository with `{config}` in it; for a repository whose loading script `datasets` no
    # longer runs
    hub_file: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)  # our split names → the Hub's, where they differ
    # where the data lie in a clone of the authors' repository (`REPOSITORY`), whose path a recipe gives as `id`
    folder: str | None = None
    # `corrections`, a person's edits; or `ratings`, of which pairs are made (`bmc.data.human_feedback`). A recipe's
    # `columns` name the raw columns of both
    kind: Literal["corrections", "ratings"] | None = None
    # what they are called, where a recipe doesn't say: our names → the file's
    names: Mapping[str, str] = field(default_factory=dict)
    gather: Callable[[Iterable[Row]], Iterable[Row]] | None = None  # turns all raw rows into those that `to_row` knows


def _rated(
    hub_id: str | None = None, gather: Callable[[Iterable[Row]], Iterable[Row]] | None = None, **names: str
) -> DatasetSpec:
    """Describe rated responses."""
    return DatasetSpec("chat", ratings, _RATINGS, hub_id, kind="ratings", names=names, gather=gather)


def _released(name: str, folder: str, loader: Callable[[str, str], Callable[[Row], Row]]) -> DatasetSpec:
    """Describe a part of the authors' own training data."""
    task = {"ultrafeedback": "chat"}.get(name, name.removesuffix("_sft"))
    wants = "messages, a prompt and a response" if name.endswith("_sft") else _PAIR
    return DatasetSpec(task, loader(f"bmc_released_{name}", task), wants, folder=f"training_data/{folder}")


DATASETS: dict[str, DatasetSpec] = {
    "ecqa": DatasetSpec("qa", raw.ecqa, "q_text, q_op1 … q_op5, q_ans and taskA_pos" + _OWN, "tasksource/ecqa"),
    # The Hub's test split of QASC has no labels; the 926 rows that papers call its test set are `validation`.
    "qasc": DatasetSpec(
        "qa", raw.qasc, "question, choices and answerKey" + _OWN, "allenai/qasc", splits={"test": "validation"}
    ),
    "openbookqa": DatasetSpec(
        "qa", raw.openbookqa, "question_stem, choices and answerKey" + _OWN, "allenai/openbookqa", hub_config="main"
    ),
    "strategyqa": DatasetSpec("qa", raw.strategyqa, "question, answer and facts" + _OWN, "ChilleD/StrategyQA"),
    "arc_easy": DatasetSpec("qa", raw.arc_easy, "question, choices and answerKey" + _OWN, ARC, hub_config="ARC-Easy"),
    "arc_challenge": DatasetSpec(
        "qa", raw.arc_challenge, "question, choices and answerKey" + _OWN, ARC, "ARC-Challenge"
    ),
    "metamathqa": DatasetSpec("math", raw.metamathqa, "query and response" + _OWN, "meta-math/MetaMathQA-40K"),
    "gsm8k": DatasetSpec("math", raw.gsm8k, "question and answer" + _OWN, "openai/gsm8k", hub_config="main"),
    "math": DatasetSpec("math", raw.math, "problem and solution" + _OWN, "DigitalLearningGmbH/MATH-lighteval"),
    "mawps": DatasetSpec("math", raw.mawps, "input and target, or question and result" + _OWN, "MU-NLPC/Calc-mawps"),
    # Its authors publish files (problems_test1k.json), not a Hub data set.
    "tabmwp": DatasetSpec("math", raw.tabmwp, "table, question and answer" + _OWN),
    "math_500": DatasetSpec("math", raw.math_500, "problem, solution and answer", "HuggingFaceH4/MATH-500"),
    "svamp": DatasetSpec("math", raw.svamp, "Body, Question and Answer" + _OWN, "ChilleD/SVAMP"),
    # The Hub has one split, `validation`: all 2,305 rows, none of which are meant for training.
    "asdiv": DatasetSpec(
        "math", raw.asdiv, "body, question and answer" + _OWN, "EleutherAI/asdiv", splits={"test": "validation"}
    ),
    "ultrachat_200k": DatasetSpec(
        "chat",
        raw.ultrachat_200k,
        "messages",
        "HuggingFaceH4/ultrachat_200k",
        splits={"train": "train_sft", "test": "test_sft"},
    ),
    "ultrafeedback": DatasetSpec(
        "chat",
        raw.ultrafeedback,
        "prompt, chosen and rejected",
        "HuggingFaceH4/ultrafeedback_binarized",
        splits={"train": "train_prefs", "test": "test_prefs"},
    ),
    "alpaca_eval": DatasetSpec(
        "chat",
        raw.alpaca_eval,
        "instruction and output",
        "tatsu-lab/alpaca_eval",
        hub_config="alpaca_eval_gpt4_baseline",
        hub_file="{config}.json",
    ),
    "arena_hard": DatasetSpec(
        "chat", raw.arena_hard, "turns and question_id", "lmarena-ai/arena-hard-auto-v0.1", splits={"test": "train"}
    ),
    "clair": DatasetSpec("chat", raw.released_pairs("clair", "chat"), _PAIR, "ContextualAI/ultrafeedback_clair_32k"),
    "corrections": DatasetSpec("chat", corrections, _CORRECTIONS, kind="corrections"),
    "ratings": _rated(),
    "nectar": _rated("berkeley-nest/Nectar", responses="answers"),
    "ultrafeedback_ratings": _rated("openbmb/UltraFeedback", prompt="instruction", responses="completions"),
    "helpsteer": _rated("nvidia/HelpSteer", score="helpfulness"),
    "helpsteer2": _rated("nvidia/HelpSteer2", score="helpfulness"),
    "helpsteer3": _rated(
        "nvidia/HelpSteer3",
        prompt="context",
        response_1="response1",
        response_2="response2",
        preference="overall_preference",
    ),
    "oasst": _rated("OpenAssistant/oasst1", oasst),
    "bmc_released_qa": _released("qa", "qa_dpo_bmc", raw.released_pairs),
    "bmc_released_math": _released("math", "math_dpo_bmc", raw.released_pairs),
    "bmc_released_ultrafeedback": _released("ultrafeedback", "ultrafeedback_dpo_bmc", raw.released_pairs),
    "bmc_released_qa_sft": _released("qa_sft", "qa_sft", raw.released_sft),
    "bmc_released_math_sft": _released("math_sft", "math_sft", raw.released_sft),
    raw.GENERATOR: DatasetSpec("math", raw.reasoning_gym, "question, answer and metadata"),
    LAB: DatasetSpec("math", lab, "question, reasoning, answer and solutions"),
}
