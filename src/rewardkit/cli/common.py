"""What several commands share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def device_of(name: str | None) -> str:
    """The named device; by default CUDA where there is one."""
    import torch

    return name or ("cuda" if torch.cuda.is_available() else "cpu")


def quiet_libraries() -> None:
    """No progress bars and advice of transformers between ours; warnings and errors stay."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file whole: it is written beside its place and renamed into it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing-{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
