"""What a build shows of itself: lines, and a bar for each long step. Quiet bars where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Progress:
    """`say` takes a line; bars go to standard error, while that is a terminal."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar for a step of `total` items; it is told how many are done."""
        from tqdm import tqdm

        # disable=None: no bar where standard error is no terminal.
        shape = None if total else "{desc} …"
        with tqdm(
            total=total,
            desc=f"  {name}",
            bar_format=shape,
            disable=None,
            leave=False,
            file=sys.stderr,
            dynamic_ncols=True,
        ) as bar:

            def done(count: int) -> None:
                bar.update(count - bar.n)

            yield done

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step that cannot say how far it is."""
        with self.bar(name, 0):
            yield
