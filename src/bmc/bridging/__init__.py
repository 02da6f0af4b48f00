"""The paper's phase 1 (§3.1, Eq. 1): an editor revises y_l where it is wrong, with y_w as its reference."""
