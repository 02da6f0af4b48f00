"""A table or figure of the paper, reported beside reproduced. `make table1` builds what it needs first.

python scripts/table.py table1
python scripts/table.py table1 --model smollm2-135m
"""

import sys

from bmc.analysis.tables import TableConfig, table, targets
from bmc.errors import fail
from bmc.recipe import parse
from bmc.runtime import stage


def main() -> None:
    arguments = sys.argv[1:]
    if not arguments:
        raise fail("command line", "names no table; give table1, figure4, …, or --help for the keys")
    if not arguments[0].startswith("-"):
        arguments = ["--table", *arguments]
    (config,) = parse(arguments, TableConfig, description=__doc__, usage="TABLE [--key value …]")
    print("\n".join(targets(config)) if config.targets else table(config))


if __name__ == "__main__":
    stage(main)
