"""Bridging (§3.1): an editor mends y_l where it is wrong, with y_w as reference → (x, ỹ_w, y_l); or another `mode`.

OPENAI_API_KEY=… python scripts/bridge.py recipes/llama2-7b/qa/bridge.yaml
"""

import sys

from bmc.asking.address import where
from bmc.bridge_config import BridgeConfig
from bmc.plan import describe_data, missing_data, show
from bmc.planning.facts import bridging_facts
from bmc.recipe import parse
from bmc.runtime import stage


def plan(config: BridgeConfig) -> None:
    """Prints what would be done and what it would cost; needs no key."""
    scores, asks = config.mode == "token_scores", config.editor != "rules"
    endpoint = f"{config.model} at {where(config.base_url)}, key from {config.api_key_env}"
    facts = {
        "pairs": describe_data(config.dataset_mixture.datasets),
        "editor": endpoint if config.editor == "openai" else f"{config.editor}{f', {config.model}' if asks else ''}",
        "mode": config.mode,
        "prompt": f"{config.template} template" if asks and not scores else None,
        "tokenizer": config.tokenizer_name_or_path,
        "bridged": None if scores else f"{config.proportion:.0%} of the pairs that are kept",
        "output": config.output_dir,
    }
    if asks and not missing_data(config.dataset_mixture.datasets):
        from bmc.bridging.pipeline import load, quote_for

        facts |= quote_for(config, *load(config)).facts()
    elif asks:
        facts |= {"quote": "none before the pairs are there; roughly:"} | bridging_facts(config)
    show("bridge pairs", facts)


def main() -> None:
    (config,) = parse(sys.argv[1:], BridgeConfig, description=__doc__)
    if config.dry_run:
        plan(config)
        return
    from bmc.bridging.pipeline import bridge

    stats = bridge(config)
    print(
        f"kept {stats['kept']:,} of {stats['rows']:,} pairs ({stats['bridged']:,} bridged, {stats['dropped']:,} "
        f"dropped) in {stats['seconds']:.0f} s: {config.output_dir}"
    )
    for reason, count in stats["reasons"].items():
        print(f"  dropped {count:,}: {reason}")


if __name__ == "__main__":
    stage(main)
