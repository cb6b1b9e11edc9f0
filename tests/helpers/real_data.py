"""Where real data sets (data/) and outputs of other implementations (reference/) lie; tests skip without them."""

import os
from pathlib import Path

from tests.helpers import ROOT

SHARED = Path(os.environ.get("DETKIT_TEST_DATA") or ROOT.parent / "shared")
