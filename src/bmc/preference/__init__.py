"""The paper's phase 2 (§3.2): which tokens differ, what they weigh, and the objective over them."""
