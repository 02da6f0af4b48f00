"""Tables, verdicts and figures of the laboratory, from the committed numbers in `results/`.

python scripts/lab_results.py
"""

from pathlib import Path

from bmc.lab_figures import draw
from bmc.lab_verdicts import accuracies, claims_table, read_results
from bmc.runs import run_main

ROOT = Path(__file__).parents[1]


def main() -> None:
    results = read_results(ROOT / "results")
    print(claims_table(results))
    for study in results:
        if study != "search":
            print(f"\n{study}\n\n{accuracies(results, study)}")
    for path in draw(results, ROOT / "docs" / "figures"):
        print(f"\n{path.relative_to(ROOT)}")


if __name__ == "__main__":
    run_main(main)
