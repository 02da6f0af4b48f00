"""The SFT model's own outputs as losing responses y_l, the ground truth as winning ones y_w (§4).

python scripts/sample.py recipes/smollm2-135m/math/sample.yaml
"""

import sys

from bmc.config import SampleConfig
from bmc.plan import describe_data, describe_generation, show
from bmc.planning.facts import generation_facts
from bmc.recipe import parse
from bmc.runtime import elapsed, stage, write_json, write_jsonl


def main() -> None:
    (config,) = parse(sys.argv[1:], SampleConfig, description=__doc__)
    if config.dry_run:
        data = describe_data(config.dataset_mixture.datasets)
        share = f"the first {config.prefix_fraction:.0%} of y_w's tokens, continued"
        losers = {"losers": share if config.mode == "continue_prefix" else None}
        facts = {"prompts": data} | losers | describe_generation(config) | generation_facts(config)
        show("sample losing responses", facts)
        return
    from bmc.generation import KEEP
    from bmc.sampling import pair_up
    from bmc.stages import respond

    rows, responses, folder = respond(config)
    pairs, dropped = pair_up(rows, responses)
    write_jsonl(folder / "train.jsonl", pairs)
    write_jsonl(folder / "dropped.jsonl", dropped)
    stats = {
        "rows": len(rows),
        "pairs": len(pairs),
        "dropped": len(dropped),
        "cut_off": sum(not response["finished"] for response in responses),
        "tokens": sum(response["tokens"] for response in responses),
        "seconds": elapsed(),
    }
    write_json(folder / "stats.json", stats)
    (folder / KEEP).unlink()
    print(f"sampled {len(pairs):,} pairs ({len(dropped):,} dropped) in {elapsed():.0f} s: {folder}")


if __name__ == "__main__":
    stage(main)
