"""The numbers in `docs/results.md` are those of `results/`."""

from pathlib import Path

import pytest

from bmc.config import LabConfig
from bmc.lab_verdicts import read_results, tables
from bmc.recipe import parse

ROOT = Path(__file__).parents[2]
RESULTS = read_results(ROOT / "results")
pytestmark = pytest.mark.skipif(not RESULTS, reason="no study has been counted yet")


def test_the_page_shows_the_committed_numbers(subtests: pytest.Subtests) -> None:
    pages = [(ROOT / name).read_text() for name in ("README.md", "docs/results.md")]
    for name, table in tables(ROOT / "results").items():
        with subtests.test(name):
            assert any(table in page for page in pages)


def test_a_study_has_enough_rows(subtests: pytest.Subtests) -> None:
    for study in [study for study in RESULTS if RESULTS[study]["study"]["split"] == "test"]:
        with subtests.test(study=study):
            assert all(row["n"] >= (1000 if study.startswith("smollm2") else 2000) for row in RESULTS[study]["rows"])


def test_the_recipes_are_those_that_made_the_numbers(
    subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for folder, own in ((ROOT / "results", ()), (ROOT / "results" / "repeat", ("sft_seeds", "seeds"))):
        for study, found in read_results(folder).items():
            with subtests.test(folder=folder.name, study=study):
                (recipe,) = parse([str(ROOT / f"recipes/lab/{study}.yaml")], LabConfig)
                for key in {"split", "sft_seeds", "seeds", "methods", "stages", "bridges"} - set(own):
                    assert getattr(recipe, key) == found["study"][key], key


@pytest.mark.parametrize(
    ("search", "study"),
    [
        ("search", "core"),
        ("systems_search", "systems"),
        ("turns_search", "turns"),
        ("manner_search", "manner"),
        ("smollm2_search", "smollm2"),
        ("smollm2_two_digits_search", "smollm2_two_digits"),
    ],
)
def test_every_method_was_tuned_where_it_is_best_on_validation_rows(search: str, study: str) -> None:
    if study not in RESULTS:
        pytest.skip("not run")
    best: dict[str, tuple[float, dict[str, float]]] = {}
    for row in sorted(RESULTS[search]["rows"], key=lambda row: row["values"].get("learning_rate", 0)):
        if row["accuracy"] > best.get(row["method"], (0.0, {}))[0]:
            best[row["method"]] = (row["accuracy"], row["values"])
    tuned = {row["method"]: row["values"] for row in RESULTS[study]["rows"]}
    assert tuned == {method: values for method, (_, values) in best.items()}
