"""Data: images as uint8 tensors in three splits, from sources found by name or by path."""

from noahnas.data.dataset import Dataset, LoadOptions, Notes, Split, Task, load_data, merge
from noahnas.data.holdout import stratified

__all__ = ["Dataset", "LoadOptions", "Notes", "Split", "Task", "load_data", "merge", "stratified"]
