"""Threads that lose the processor at the worst places: between two steps of the engine."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any


def delayed(function: Callable[..., Any], longest: float) -> Callable[..., Any]:
    """*function*, with a hold-up before and after it: mostly none, sometimes a switch of threads, rarely up to *longest* seconds."""

    def pause() -> None:
        chance = random.random()
        if chance < 0.02:
            time.sleep(random.random() * longest)
        elif chance < 0.2:
            time.sleep(0)

    def wrapper(*arguments: Any, **named: Any) -> Any:
        pause()
        try:
            return function(*arguments, **named)
        finally:
            pause()

    return wrapper
