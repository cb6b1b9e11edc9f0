"""Check a data set: what ends a training (errors), what it mends in memory, and what to know of it.

detkit check data.root=/data/coco
detkit check data.root=/data/coco split=train,val decode=true html=report.html
detkit check data.root=/data data.train_annotations=a.json data.train_images=photos --json
decode=true decodes every image, by all cores; data.follow_links=true lets symbolic links lead out of the root.
--json prints every finding with its places. Exit code 65 if there is an error. Your files are never changed.
"""

import sys

from detkit import recipe
from detkit.errors import DataError


def main(argv: list[str]) -> None:
    """Check all splits, then say what was found."""
    if not argv or {"-h", "--help"} & set(argv):
        print(__doc__)
        return
    given = recipe.parse(argument for argument in argv if argument != "--json")
    from detkit.data.checking.check_options import check, read_options
    from detkit.data.checking.show import show, to_json

    options = read_options(given)
    splits = check(options)
    if "--json" in argv:
        print(to_json(splits))
    else:
        show(splits, recipe.console(), options.html)
    if any(split.index is None for split in splits.values()):
        sys.exit(DataError.exit_code)
