"""Responses come in the order of their prompts, whatever the batches and processes, and none is generated twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmc.config import GenerationArguments
from bmc.generation.generate import PARTIAL, cache_keys, generate, response_seed, shard


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=40), st.integers(1, 7))
def test_each_row_that_is_left_falls_to_one_process_longest_first(rows: list[tuple[int, bool]], ranks: int) -> None:
    lengths, done = [length for length, _ in rows], [ended for _, ended in rows]
    shares = [shard(lengths, done, rank, ranks) for rank in range(ranks)]
    assert sorted(place for mine in shares for place in mine) == [n for n, ended in enumerate(done) if not ended]
    for mine in shares:
        assert [lengths[place] for place in mine] == sorted((lengths[place] for place in mine), reverse=True)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    sums = [sum(lengths[place] for place in mine) for mine in shares]
    assert max(sums) - min(sums) <= max(lengths, default=0)  # each longer row's turn is made up for by the next


@given(st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=20))
def test_a_prompts_name_depends_on_it_and_its_like_alone(prompts: list[list[int]]) -> None:
    keys = cache_keys(prompts)
    assert len(set(keys)) == len(prompts)
    for number in {tuple(prompt) for prompt in prompts}:
        alike = [key for key, prompt in zip(keys, prompts, strict=True) if tuple(prompt) == number]
        assert alike == cache_keys([list(number)] * len(alike))
    assert all(0 <= response_seed(7, key) < 2**63 for key in keys)
    assert len({response_seed(seed, key) for seed in (1, 2) for key in keys}) == 2 * len(keys)


class Echo:
    """A backend that answers each prompt with its length, last first in twos; `dies` after so many."""

    def __init__(self, dies: int = 99) -> None:
        self.asked: list[int] = []
        self.dies = dies

    def __call__(self) -> Any:
        return self.complete

    def complete(self, prompts: list[list[int]], seeds: list[int], settings: list[Any]) -> Any:
        assert len(prompts) == len(seeds) == len(settings)
        for start in range(0, len(prompts), 2):
            for place in reversed(range(start, min(start + 2, len(prompts)))):
                if len(self.asked) == self.dies:
                    raise ZeroDivisionError
                self.asked.append(len(prompts[place]))
                yield place, {"text": str(len(prompts[place])), "tokens": 1, "finished": True}


PROMPTS = [[0] * length for length in (3, 9, 1, 5, 7, 2)]
SETTINGS = [GenerationArguments()] * len(PROMPTS)


def texts(folder: Path, backend: Echo) -> list[str]:
    return [response["text"] for response in generate(PROMPTS, SETTINGS, backend, folder)]


def test_responses_are_in_the_order_of_the_prompts(tmp_path: Path) -> None:
    backend = Echo()
    assert texts(tmp_path, backend) == ["3", "9", "1", "5", "7", "2"]
    assert backend.asked == [7, 9, 3, 5, 1, 2]


def test_a_killed_run_does_only_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        texts(tmp_path, Echo(dies=3))  # in the middle of its second batch
    with (tmp_path / PARTIAL).open("a") as file:
        file.write('{"key": "a line that it was ki')
    backend = Echo()
    assert texts(tmp_path, backend) == ["3", "9", "1", "5", "7", "2"]
    assert sorted(backend.asked) == [1, 2, 5]
    assert len((tmp_path / PARTIAL).read_text().splitlines()) == 6


def test_a_line_without_its_end_is_made_anew(tmp_path: Path) -> None:
    """It may be whole by chance, but what follows would be glued to it."""
    texts(tmp_path, Echo())
    kept = tmp_path / PARTIAL
    kept.write_text(kept.read_text()[:-1])
    backend = Echo()
    texts(tmp_path, backend)
    assert len(backend.asked) == 1
    assert [json.loads(line)["tokens"] for line in kept.read_text().splitlines()] == [1] * 6


def test_what_other_processes_kept_is_used_and_folded_into_one_file(tmp_path: Path) -> None:
    texts(tmp_path, Echo())
    lines = (tmp_path / PARTIAL).read_text().splitlines(keepends=True)
    (tmp_path / PARTIAL).unlink()
    (tmp_path / f"3.{PARTIAL}").write_text("".join(lines[:4]))
    backend = Echo()
    assert texts(tmp_path, backend) == ["3", "9", "1", "5", "7", "2"]
    assert len(backend.asked) == 2
    assert [path.name for path in tmp_path.iterdir()] == [PARTIAL]


def test_other_prompts_find_what_is_theirs_alone(tmp_path: Path) -> None:
    texts(tmp_path, Echo())
    backend = Echo()
    generate([[0] * 5, [0] * 4, [0] * 5], SETTINGS[:3], backend, tmp_path)
    assert sorted(backend.asked) == [4, 5]  # of two equal prompts, each has a response of its own


def test_a_run_that_is_complete_loads_no_model(tmp_path: Path) -> None:
    texts(tmp_path, Echo())
    assert [response["text"] for response in generate(PROMPTS, SETTINGS, lambda: 1 / 0, tmp_path)] == [
        "3",
        "9",
        "1",
        "5",
        "7",
        "2",
    ]
    assert generate([], [], lambda: 1 / 0, tmp_path) == []
