"""Guided by coverage (pip install atheris): python -m tests.fuzz.with_atheris wire -runs=100000

libFuzzer's options follow the target; a folder named last keeps the inputs that reached new code.
"""

from __future__ import annotations

import random
import sys

import atheris

with atheris.instrument_imports(include=["deltaserver", "zipfile", "yaml"]):
    from tests.fuzz.mutations import INPUTS, anything
    from tests.fuzz.targets import TARGETS


def main() -> None:
    target = sys.argv.pop(1)
    call = TARGETS[target]()
    good = [data for data, _ in zip(INPUTS[target](random.Random(0)), range(200), strict=False)]

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if not data or rng.random() < 0.2:
            data = rng.choice(good)
        if rng.random() < 0.5:
            return anything(rng, data, good)[:max_size]
        return atheris.Mutate(data, max_size)

    atheris.Setup(sys.argv, lambda data: call(data) and None, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
