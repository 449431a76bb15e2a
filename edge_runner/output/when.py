"""Which results an output gets: by label and score, when the answer changes, at most so often."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from edge_runner.fields import Duration, Fraction, Length
from edge_runner.result import Answers, Result


@dataclass(frozen=True)
class When:
    """A part of the configuration. `labels` None is every label; `heartbeat` and `hold` matter with `changed` only, durations in
    seconds, 0 is never, or at once."""

    labels: Annotated[tuple[str, ...], Length(1)] | None = None
    min_score: Fraction = 0.0
    changed: bool = False
    min_interval: Duration = 0.0
    hold: Duration = 2.0
    heartbeat: Duration = 300.0

    def at_most_each(self, interval_s: float) -> When:
        """The same, with at least so many seconds between two results."""
        return replace(self, min_interval=max(self.min_interval, interval_s))


class Chooser:
    """Tells of one result after the other whether an output wants it. Each camera is seen for itself."""

    def __init__(self, when: When) -> None:
        self.when = when
        self._cameras: dict[str, _Seen] = {}

    def wants(self, result: Result, now: float | None = None) -> bool:
        """Whether this result, which comes `now` (time.monotonic's seconds), is wanted: `took` says that it was got."""
        seen = self._cameras.setdefault(result.camera, _Seen())
        seen.now = time.monotonic() if now is None else now
        counts = Counter(matching(result.answers, self.when))
        seen.answer = seen.held(counts, seen.now, self.when.hold) if self.when.changed else counts
        early = seen.taken_at is not None and seen.now - seen.taken_at < self.when.min_interval
        return not early and self._speaks(seen)

    def took(self, result: Result) -> None:
        """The result that was wanted last was got: the next one is compared with it."""
        seen = self._cameras[result.camera]
        seen.taken_at, seen.told = seen.now, seen.answer

    def _speaks(self, seen: _Seen) -> bool:
        if not self.when.changed:
            return bool(seen.answer) or (self.when.labels is None and self.when.min_score == 0)
        if seen.taken_at is None or seen.answer != seen.told:
            return True
        return bool(self.when.heartbeat) and seen.now - seen.taken_at >= self.when.heartbeat


class _Seen:
    """What one camera shows: its `answer` at `now`, and `told`, the one that was `taken_at` last."""

    def __init__(self) -> None:
        self.now = 0.0
        self.answer: Mapping[str, int] = {}
        self.taken_at: float | None = None
        self.told: Mapping[str, int] = {}
        self._held: dict[str, int] = {}
        self._since: dict[str, float] = {}
        self._fewer: dict[str, int] = {}

    def held(self, counts: Mapping[str, int], now: float, hold_s: float) -> dict[str, int]:
        """The answer without its flicker: what appears counts at once, what goes only once it has been gone for `hold_s`.

        A count falls to the most that was seen meanwhile.
        """
        for label in {*counts, *self._held}:
            count, held = counts.get(label, 0), self._held.get(label, 0)
            if count >= held:
                self._held[label] = count
                self._since.pop(label, None)
                continue
            if label not in self._since:
                self._since[label], self._fewer[label] = now, 0
            self._fewer[label] = max(self._fewer[label], count)
            if now - self._since[label] >= hold_s:
                self._held[label] = self._fewer[label]
                del self._since[label]
        self._held = {label: count for label, count in self._held.items() if count}
        return dict(self._held)


def matching(answers: Answers, when: When) -> Iterable[str]:
    """The labels of the answers that count: of a classification its best alone."""
    for label, score in scored(answers):
        if score >= when.min_score and (when.labels is None or label in when.labels):
            yield label


def scored(answers: Answers) -> Iterable[tuple[str, float]]:
    """Each answer with its label and its score, 0..1; of a segment, which has none, its area."""
    for best in (answers.classifications or ())[:1]:
        yield best.label, best.score
    for found in answers.detections or ():
        yield found.label, found.score
    for segment in answers.segments or ():
        yield segment.label, segment.area
    if answers.detections is None:
        for point in answers.keypoints or ():
            yield point.name, point.score
