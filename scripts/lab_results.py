"""Write the laboratory's tables and figures, from the committed numbers in `results/`, into README.md and docs/.

python scripts/lab_results.py
"""

import re
from pathlib import Path

from bmc.lab_figures import draw
from bmc.lab_verdicts import read_results, tables
from bmc.runs import run_main

ROOT = Path(__file__).parents[1]


def main() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "results.md"):
        text = page.read_text(encoding="utf-8")
        for name, table in tables(ROOT / "results").items():
            start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
            text = re.sub(f"(?s){start}.*?{end}", lambda found: f"{start}\n\n{table}\n\n{end}", text)  # noqa: B023
        page.write_text(text, encoding="utf-8")
    for path in draw(read_results(ROOT / "results"), ROOT / "docs" / "figures"):
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    run_main(main)
