"""The paper's phase 1 (§3.1, Eq. 1): an editor mends the losing response where it is wrong, the winner as reference."""
