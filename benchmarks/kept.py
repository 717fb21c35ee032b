"""Where figures are kept, and on what machine they were found."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from rewardkit.data.whole import write_json

RESULTS = Path(__file__).parent / "results"


def keep(name: str, found: Any) -> Path:
    """Write figures as ``results/NAME.json``; returns the file."""
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    out = RESULTS / f"{name}.json"
    write_json(out, {"machine": card, "torch": torch.__version__, "found": found})
    return out
