"""Responses to the benchmarks (greedy by default), scored: n, accuracy and 95 % Wilson interval of each.

python scripts/evaluate.py recipes/smollm2-135m/math/eval.yaml --model_name_or_path outputs/smollm2-135m/math/dpo_bmc
"""

import sys
from pathlib import Path

from bmc import card
from bmc.config import EvaluateConfig
from bmc.plan import describe_data, describe_generation, show
from bmc.planning.facts import generation_facts
from bmc.recipe import parse
from bmc.runtime import elapsed, stage, write_json, write_jsonl


def main() -> None:
    (config,) = parse(sys.argv[1:], EvaluateConfig, description=__doc__)
    if config.dry_run:
        data = describe_data(config.dataset_mixture.datasets)
        show("evaluate", {"benchmarks": data} | describe_generation(config) | generation_facts(config))
        return
    from bmc.evaluation.outputs import write_outputs
    from bmc.evaluation.scoring import describe, predict, summarise
    from bmc.generation import KEEP
    from bmc.stages import respond

    rows, responses, folder = respond(config)
    given = zip(rows, responses, strict=True)
    predictions = [predict(row, response["text"]) | {"tokens": response["tokens"]} for row, response in given]
    write_jsonl(folder / "predictions.jsonl", predictions)
    write_outputs(folder, rows, responses, config.model_name_or_path)
    metrics = {
        "model": config.model_name_or_path,
        **summarise(predictions),
        "tokens": sum(response["tokens"] for response in responses),
        "seconds": elapsed(),
    }
    write_json(folder / "metrics.json", metrics)
    (folder / KEEP).unlink()
    if folder.parent == Path(config.model_name_or_path):  # results of a model of ours, beside it
        card.write(folder.parent)
    print(describe(metrics))


if __name__ == "__main__":
    stage(main)
