"""Compare all runs below a folder: `report.html` for the browser, `report.md` as text.

python scripts/report.py outputs/smollm2-135m/math
"""

from bmc.cli import script

if __name__ == "__main__":
    script("report")
