"""Files that would fill the memory or end in a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from bmc.data.files import file_rows
from bmc.errors import Faults

READ = """
import resource, sys
from pathlib import Path
from bmc.data.files import file_rows
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = [(row["prompt"], len(row["text"]), len(row["turns"][0]["content"])) for row in file_rows(Path(sys.argv[1]))]
assert rows == [(str(i), 2_000_000, 2_000_000) for i in range(300)], rows[:3]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_small_parquet_file_of_large_texts_takes_little_memory(tmp_path: Path) -> None:
    """1.2 GB of text in some 10 kB."""
    text = "x" * 2_000_000
    turns = [[{"role": "user", "content": text}]] * 300
    table = pyarrow.table({"prompt": [str(i) for i in range(300)], "text": [text] * 300, "turns": turns})
    parquet.write_table(table, tmp_path / "bomb.parquet", compression="zstd")
    assert (tmp_path / "bomb.parquet").stat().st_size < 20_000
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "bomb.parquet")], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 350_000  # kB; 256 rows at once take more than a million


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 20_000, "9" * 5000, '{"n": ' + "9" * 5000 + "}"])
@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_json_that_no_reader_takes_is_a_fault(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(f"{text}\n")
    with pytest.raises(Faults, match=rf"{name}: (line|row) 1: is not JSON \((nested too deeply|a number of thousands)"):
        list(file_rows(tmp_path / name))
