"""Independent stages side by side."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from foundry import run
from foundry.errors import Cancelled


def together(*acts: Callable[[], Any]) -> list[Any]:
    """Call every act in a thread of its own; returns their results in order.

    The first failure ends the commands of the others, and is what is raised.
    """
    with ThreadPoolExecutor(len(acts)) as pool:
        futures = [pool.submit(contextvars.copy_context().run, act) for act in acts]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        except BaseException:
            run.cancel()
            raise
        first = [f for f in done if f.exception()]
        if first:
            run.cancel()
    # Where one of them has threads of its own, what fails there ends the commands of others before it ends itself.
    errors = [e for f in (*first, *futures) if (e := f.exception())]
    real = [e for e in errors if not isinstance(e, Cancelled)] or errors
    if real and real[0]:
        raise real[0]
    return [f.result() for f in futures]
