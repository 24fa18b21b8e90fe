"""Makes the toy world importable, here and in the processes that tests start."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("diagnosis", "training"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / folder))
