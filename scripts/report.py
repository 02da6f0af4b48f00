"""All runs below a folder, side by side: `report.html` to look at, `report.md` to read.

python scripts/report.py outputs/smollm2-135m/math
"""

import sys

from bmc.analysis.report import report
from bmc.config import ReportConfig
from bmc.recipe import parse
from bmc.runtime import stage


def main() -> None:
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-") and not arguments[0].endswith((".yaml", ".yml")):
        arguments = ["--runs", *arguments]
    (config,) = parse(arguments, ReportConfig, description=__doc__, usage="RUNS [--key value …]")
    print(report(config))


if __name__ == "__main__":
    stage(main)
