"""Where real data sets (data/) and outputs of other implementations (reference/) lie; tests skip without them."""

import os
from pathlib import Path

SHARED = Path(os.environ.get("DETKIT_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared")
