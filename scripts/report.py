"""All runs below a folder, side by side: `report.html` to look at, `report.md` to read.

python scripts/report.py outputs/smollm2-135m/math
"""

from bmc.cli import script

if __name__ == "__main__":
    script("report")
