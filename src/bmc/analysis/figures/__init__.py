"""The paper's figures from one's own runs: numbers → CSV, PNG, SVG."""
