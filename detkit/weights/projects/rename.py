"""Names of another project's tensors, rewritten one rule after the other."""

import re
from collections.abc import Sequence

Rules = Sequence[tuple[str, str]]  # regular expression, and what stands in its place


def rename(name: str, rules: Rules) -> str:
    """A name after all rules, each applied to what the one before it made."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
