"""What TRL's trainers need here: arguments that agree with ours, a clock, and a record of each step's loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.speed.settings import Setting
from benchmarks.speed.timing import Clock, Run


def arguments(setting: Setting, folder: Path, **own: Any) -> dict[str, Any]:
    """Of a TRL config: its defaults, but for what must agree with our side and what would only write files."""
    return {
        "output_dir": str(folder / "trl"),
        "per_device_train_batch_size": setting.batch,
        "max_steps": setting.steps + 1,
        "train_sampling_strategy": "sequential",
        "learning_rate": setting.lr,
        "lr_scheduler_type": "constant",
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": setting.device == "cpu",
        "model_init_kwargs": {"dtype": setting.dtype},
        "dataloader_num_workers": 0,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **own,
    }


def recorded(base: type, clock: Clock) -> type:
    """A trainer that keeps the loss of each step, and ticks at its end; what it computes is untouched."""
    from transformers import TrainerCallback

    class Ticks(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock.tick()

    class Recorded(base):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.losses: list[Any] = []
            super().__init__(*args, callbacks=[Ticks()], **kwargs)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            self.losses.append(loss.detach())
            return loss

    return Recorded


def train(setting: Setting, base: type, config: Any, folder: Path, rows: list[dict[str, str]]) -> Run:
    """One training of a preference trainer from the checkpoint in ``folder``."""
    from datasets import Dataset

    clock = Clock(setting.device)
    trainer = recorded(base, clock)(model=str(folder), args=config, train_dataset=Dataset.from_list(rows))
    trainer.train()
    return Run(clock.seconds(setting.steps), [float(x) for x in trainer.losses])
