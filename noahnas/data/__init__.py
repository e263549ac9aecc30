"""Data: images as uint8 tensors in three splits, from sources found by name or by path."""

from noahnas.data.dataset import Dataset, LoadOptions, Split, Task, load_data, merge, stratified

__all__ = ["Dataset", "LoadOptions", "Split", "Task", "load_data", "merge", "stratified"]
