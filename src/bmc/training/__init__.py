"""Train on preference pairs: token weights, objectives, prefix sharing, fault tolerance (paper, section 3.2)."""
