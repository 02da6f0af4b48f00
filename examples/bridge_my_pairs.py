"""Bridge the preference pairs of a file, and show what was edited.

OPENAI_API_KEY=none python examples/bridge_my_pairs.py my_pairs.jsonl outputs/bridge http://localhost:8000/v1 my-model

The file has `prompt`, `chosen` and `rejected` in each line. Without a server, for sums and closed questions with an
`answer`, the rule editor will do: leave out the last two arguments.
"""

import json
import sys
from pathlib import Path

from bmc.bridging.run import bridge
from bmc.config import BridgeConfig, DatasetConfig, DatasetMixture

pairs, output_dir, *server = sys.argv[1:]
editor = {"editor": "openai", "base_url": server[0], "model": server[1], "yes": True} if server else {"editor": "rules"}
config = BridgeConfig(
    dataset_mixture=DatasetMixture(datasets=[DatasetConfig(id=pairs)]),
    template="instruction" if server else "closed",
    output_dir=output_dir,
    **editor,
)
stats = bridge(config)
print(f"{stats['kept']} of {stats['rows']} pairs kept; dropped: {stats['reasons']}")
with (Path(output_dir) / "train.jsonl").open() as rows:
    row = json.loads(next(rows))
for column in ("original_chosen", "rejected", "chosen"):
    print(f"\n{column}: {row[column]}")
