"""What evaluates the sums of a model: our own loops, torch, and sgdml itself."""

from typing import Literal

Precision = Literal["float64", "float32"]
PRECISIONS: tuple[Precision, ...] = ("float64", "float32")
Storage = Literal["auto", "double", "single"]
STORAGES: tuple[Storage, ...] = ("auto", "double", "single")
Backend = Literal["numpy", "torch", "sgdml"]
BACKENDS: tuple[Backend, ...] = ("numpy", "torch", "sgdml")
