"""The benchmarks are not installed: tests find them from the repository's root, however pytest was started."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
