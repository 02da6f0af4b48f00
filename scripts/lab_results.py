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
    for title, found in (("", results), ("Repetition with new SFT seeds", read_results(ROOT / "results/repeat"))):
        print(f"{title}\n\n{claims_table(found)}")
        for study in found:
            if study != "search":
                print(f"\n{study}\n\n{accuracies(found, study)}")
    for path in draw(results, ROOT / "docs" / "figures"):
        print(f"\n{path.relative_to(ROOT)}")


if __name__ == "__main__":
    run_main(main)
