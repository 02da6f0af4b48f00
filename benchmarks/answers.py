"""False accepts and false rejects of math graders, side by side.

python benchmarks/answers.py math500_test.jsonl gsm8k_test.jsonl mawps_test.jsonl [--is_equiv FILE] [--released FOLDER]

Three measurements, of `bmc.evaluation.math_equal` and of every peer at hand:

- gold answers as predictions, which must all be right;
- gold answers with one place changed (a digit, a sign, a letter, a bracket, a command left out), which should all be
  wrong. `n/N` counts those accepted although Hendrycks' is_equiv and math-verify's LaTeX reading both call them wrong;
- right and wrong answers written by hand (`tests/evaluation/answers.yaml`).

Peers: math-verify as lm-evaluation-harness calls it and its LaTeX reading alone (`pip install math-verify`), Hendrycks'
is_equiv (`--is_equiv math_equivalence.py` of hendrycks/math), the paper's released grader (`--released`, a folder with
`grader.py` and `parser.py` of its eval/math/eval).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import logging
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from bmc.evaluation.maths import math_equal

Grader = Callable[[str, str], bool]
VARIANTS = Path(__file__).parents[1] / "tests/evaluation/answers.yaml"
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|.", re.DOTALL)


def gold_answers(path: Path) -> list[str]:
    """The gold answers of a file of MATH-500, GSM8K or MAWPS rows, as their loaders write them."""
    answers = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        answer = row["target"] if "target" in row else row["answer"]
        if isinstance(answer, str) and "####" in answer:
            answer = answer.rpartition("####")[2].strip().replace(",", "")
        answers.append(str(int(answer)) if isinstance(answer, float) and answer.is_integer() else str(answer))
    return answers


def one_place_changes(gold: str, draw: random.Random) -> Iterator[str]:
    """Answers that differ from a gold one in one place."""
    tokens = _TOKEN.findall(gold)
    swaps = {"+": "-", "-": "+", "(": "[", ")": "]", "[": "(", "]": ")", ",": ".", "/": "+", "<": ">", ">": "<"}
    for place, token in enumerate(tokens):
        before, after = "".join(tokens[:place]), "".join(tokens[place + 1 :])
        if token.isdigit():
            yield before + draw.choice([digit for digit in "123456789" if digit != token]) + after
            yield before + token + draw.choice("123456789") + after
        elif token in swaps:
            yield before + swaps[token] + after
        elif len(token) == 1 and token.isalpha():
            yield before + draw.choice([letter for letter in "abcdnpqxyz" if letter != token.lower()]) + after
        if not token.isspace():
            yield before + after
    yield f"-{gold}"
    yield f"{gold}!"
    yield rf"{gold}\pi"
    yield rf"{gold}\sqrt{{2}}"
    yield f"{gold}x"
    yield f"{gold}, 1"


def timed(grader: Grader, seconds: int = 5) -> Grader:
    """A grader that says no where it takes too long or fails."""

    def stop(*_: Any) -> None:
        raise TimeoutError

    def grade(answer: str, gold: str) -> bool:
        signal.signal(signal.SIGALRM, stop)
        signal.alarm(seconds)
        try:
            return bool(grader(answer, gold))
        except BaseException as error:  # math-verify's time-out is no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            return False
        finally:
            signal.alarm(0)

    return grade


def math_verify(latex_only: bool) -> Grader:
    from math_verify import LatexExtractionConfig, parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    if latex_only:
        config = [LatexExtractionConfig()]
        return lambda answer, gold: verify(parse(f"${gold}$", config), parse(f"${answer}$", config))
    return lambda answer, gold: verify(parse(rf"$\boxed{{{gold}}}$"), parse(f"The answer is {answer}"))


def released(folder: Path) -> Grader:
    """The authors' grader on their extraction and normalisation."""
    sys.path.insert(0, str(folder))
    grader, parser = importlib.import_module("grader"), importlib.import_module("parser")
    return lambda answer, gold: grader.math_equal(
        parser.strip_string(parser.extract_answer(f"The answer is {answer}", "math")), parser.strip_string(gold)
    )


def is_equiv(path: Path) -> Grader:
    spec = importlib.util.spec_from_file_location("math_equivalence", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.is_equiv


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("files", nargs="*", type=Path)
    arguments.add_argument("--is_equiv", type=Path)
    arguments.add_argument("--released", type=Path)
    arguments.add_argument("--show", action="store_true", help="print each wrong judgement of math_equal")
    given = arguments.parse_args()
    graders: dict[str, Grader] = {"math_equal": math_equal}
    if importlib.util.find_spec("math_verify"):
        graders |= {"math-verify": timed(math_verify(False)), "LaTeX reading": timed(math_verify(True))}
    if given.is_equiv:
        graders["is_equiv"] = timed(is_equiv(given.is_equiv))
    if given.released:
        graders["released"] = timed(released(given.released))
    for path in given.files:
        measure_file(path, graders, given.show)
    measure_variants(graders, given.show)


def measure_file(path: Path, graders: dict[str, Grader], show: bool) -> None:
    golds = gold_answers(path)
    draw = random.Random(0)
    changes = {(changed, gold) for gold in set(golds) for changed in one_place_changes(gold, draw) if changed.strip()}
    changes = {pair for pair in changes if pair[0].strip() != pair[1].strip()}
    print(f"{path.name}: {len(golds)} gold answers, {len(changes)} changed in one place")
    oracles = [graders[name] for name in ("is_equiv", "LaTeX reading") if name in graders]
    wrong = {pair for pair in sorted(changes) if not any(oracle(*pair) for oracle in oracles)}
    for name, grader in graders.items():
        start = time.perf_counter()
        rejected = [gold for gold in golds if not grader(gold, gold)]
        accepted = [pair for pair in sorted(changes) if grader(*pair)]
        rate = (len(golds) + len(changes)) / (time.perf_counter() - start)
        false = [pair for pair in accepted if pair in wrong]
        print(f"  {name:14} gold rejected {len(rejected)}, changed accepted {len(accepted)}"
              + (f", of those that both oracles call wrong {len(false)}/{len(wrong)}" if oracles else "")
              + f"; {rate:,.0f} rows/s")  # fmt: skip
        if show and name == "math_equal":
            for pair in [(gold, gold) for gold in rejected] + (false if oracles else accepted):
                print("    ", *pair, sep="  |  ")


def measure_variants(graders: dict[str, Grader], show: bool) -> None:
    cases = yaml.safe_load(VARIANTS.read_text(encoding="utf-8"))
    rows = [(str(answer), str(case["gold"]), kind == "right")
            for case in cases for kind in ("right", "wrong") for answer in case[kind]]  # fmt: skip
    right = sum(is_right for *_, is_right in rows)
    print(f"{VARIANTS.name}: {right} right, {len(rows) - right} wrong answers")
    for name, grader in graders.items():
        missed = [row for row in rows if grader(row[0], row[1]) is not row[2]]
        rejects = sum(is_right for *_, is_right in missed)
        print(f"  {name:14} false accepts {len(missed) - rejects}, false rejects {rejects}")
        if show and name == "math_equal":
            for answer, gold, is_right in missed:
                print("     should be", is_right, repr(answer), repr(gold), sep="  ")


if __name__ == "__main__":
    main()
