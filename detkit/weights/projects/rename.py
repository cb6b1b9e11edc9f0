"""Rename the tensors of another project by a list of rules."""

import re
from collections.abc import Sequence

Rules = Sequence[tuple[str, str]]  # (regular expression, replacement)


def rename(name: str, rules: Rules) -> str:
    """The name after all rules were applied in their order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
