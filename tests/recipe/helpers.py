"""A module that a constructor of the toys calls into."""


def parsed(threshold: float) -> float:
    if threshold == 0.25:
        return float("a bug, not a user's fault")
    if threshold > 1:
        raise ValueError(f"threshold must be at most 1; got {threshold}")
    return threshold
