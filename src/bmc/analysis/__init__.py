"""Results of runs → tables."""
