"""What evaluates the sums of a model: our own loops, torch, and sgdml itself."""

from typing import Literal

Precision = Literal["float64", "float32"]
PRECISIONS: tuple[Precision, ...] = ("float64", "float32")
Backend = Literal["numpy", "torch", "sgdml"]
BACKENDS: tuple[Backend, ...] = ("numpy", "torch", "sgdml")
