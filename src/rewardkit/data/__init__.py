"""Readers and writers of the standard columns; rows, splits and order of what was read."""

from rewardkit.data.batches import shuffled
from rewardkit.data.errors import DataError, ReadReport
from rewardkit.data.reader import Reader, best, read, read_judgements, read_prompts, read_samples
from rewardkit.data.rows import Rows, attach, comparison_rows, labelled_rows, rated_rows
from rewardkit.data.split import split
from rewardkit.data.write import write_judgements, write_samples

__all__ = [
    "DataError",
    "ReadReport",
    "Reader",
    "Rows",
    "attach",
    "best",
    "comparison_rows",
    "labelled_rows",
    "rated_rows",
    "read",
    "read_judgements",
    "read_prompts",
    "read_samples",
    "shuffled",
    "split",
    "write_judgements",
    "write_samples",
]
