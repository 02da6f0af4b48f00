"""What a recipe would cost, before it runs: parameters, tokens, memory, time, disk and dollars, as pure functions."""
