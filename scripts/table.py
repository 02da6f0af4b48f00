"""Print a table or figure of the paper, its numbers beside ours. `make table1` builds what it needs first.

python scripts/table.py table1
python scripts/table.py table1 --model smollm2-135m
"""

from bmc.cli import script

if __name__ == "__main__":
    script("table")
