"""What may be asked about a model on a command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detkit.errors import RecipeError

NUMBERS = {"classes": 1, "depth": 0, "channels": 1}  # least values


class Options(NamedTuple):
    """A table of the parts, unless names of weights or a picture of feature maps are asked for."""

    checkpoint: str = ""  # a run's folder or a detector file; empty: a recipe
    trusted: str = ""  # package whose classes a checkpoint may name
    classes: int = 80  # where the recipe leaves them to the data
    depth: int = 1  # 0: the parts, 1: and their children, and so on
    names: str = ""  # patterns, separated by commas
    image: str = ""  # file to draw the feature maps of
    channels: int = 16  # of each level in the picture
    out: Path = Path("features.jpg")

    @property
    def needs_weights(self) -> bool:
        """Whether weights are to be loaded; what the parts of a recipe cost does not depend on them."""
        return bool(self.checkpoint or self.names or self.image)


def read_options(argv: Sequence[str]) -> tuple[Options, list[str]]:
    """Options among the arguments, and the others, which concern the recipe.

    Args:
        argv: ``key=value``, and the word ``features``, which asks for an ``image``.

    Raises:
        RecipeError: if a value does not fit, or ``features`` comes without an image.
    """
    given = [argument.partition("=") for argument in argv]
    texts = {key: text for key, equals, text in given if key in Options._fields and equals}
    numbers = {key: as_count(key, texts[key], least) for key, least in NUMBERS.items() if key in texts}
    paths = {"out": Path(texts["out"]).expanduser()} if "out" in texts else {}
    options = Options(**{**texts, **numbers, **paths})
    if "features" in argv and not options.image:
        raise RecipeError("image: is missing; name the file to look at, e.g. features image=photo.jpg")
    rest = [argument for argument in argv if argument != "features" and argument.partition("=")[0] not in texts]
    return options, rest


def as_count(name: str, text: str, least: int) -> int:
    """A whole number as it was typed.

    Raises:
        RecipeError: if it is none, or smaller than ``least``.
    """
    if not text.isdecimal() or int(text) < least:
        raise RecipeError(f"{name}: must be a whole number from {least} on; got {text!r}")
    return int(text)
