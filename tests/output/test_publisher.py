"""Results to several outputs, some of which fail, block, or are slow."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from edge_runner.errors import NoWayBackError, OutputError, SettingError
from edge_runner.output import courier, publisher
from edge_runner.output.base import Item, Origin, Output, OutputConfig
from edge_runner.output.publisher import Publisher
from edge_runner.output.when import When
from edge_runner.result import Result

Make = Callable[..., Result]
SHOT: Any = None
LONG_S = 30.0


@dataclass(frozen=True)
class KeptConfig(OutputConfig):
    type: str = "kept"


class Kept(Output):
    """Keeps results; raises `trouble` while there is any, blocks while `free` is not set, takes `takes_s` for each."""

    def __init__(self, when: When | None = None) -> None:
        super().__init__(KeptConfig(when=when))
        self.trouble: Exception | None = None
        self.free = threading.Event()
        self.free.set()
        self.takes_s = 0.0
        self.seqs: list[int] = []
        self.seen: list[int] = []
        self.calls: list[str] = []
        self.threads: set[str] = set()

    def open(self, origin: Origin) -> None:
        self.calls.append("open")

    def see(self, result: Result) -> None:
        self.seen.append(result.seq)

    def write(self, item: Item) -> None:
        self.threads.add(threading.current_thread().name)
        self.free.wait(LONG_S)
        time.sleep(self.takes_s)
        if self.trouble:
            raise self.trouble
        self.seqs.append(item.result.seq)

    def tick(self) -> None:
        self.calls.append("tick")
        self.due = None

    def finish(self, until: float) -> None:
        self.calls.append("finish")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture(autouse=True)
def _time_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the machine is held up."""
    monkeypatch.setattr(publisher, "FLUSH_S", LONG_S)


def settle(subject: Publisher) -> None:
    """Wait until every output has what it was handed."""
    until(lambda: not subject.waiting)


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LONG_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def running() -> list[str]:
    """The outputs' threads."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("output-")]


def outputs(*some: Output) -> Mapping[str, Output]:
    return {f"outputs.{number}": each for number, each in enumerate(some)}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_each_has_a_thread_of_its_own(result: Make) -> None:
    """Results come to every output in order, by a thread that is named after it and has ended when the publisher has."""
    one, two = Kept(), Kept()
    with Publisher(outputs(one, two)) as subject:
        for seq in range(1, 101):
            subject.publish(result(seq=seq), SHOT)
    assert one.seqs == two.seqs == list(range(1, 101))
    assert (one.threads, two.threads) == ({"output-outputs.0"}, {"output-outputs.1"})
    assert one.calls == ["open", "finish", "close"]
    until(lambda: not running())


def test_can_be_entered_again(result: Make) -> None:
    """After its end it starts anew."""
    kept = Kept()
    subject = Publisher(outputs(kept))
    for seq in (1, 2):
        with subject:
            subject.publish(result(seq=seq), SHOT)
    assert kept.seqs == [1, 2]


def test_one_that_does_not_open() -> None:
    """Those that are open already are closed, no thread is left, and the error names the key."""

    class Never(Kept):
        def open(self, origin: Origin) -> None:
            raise SettingError("there is none", key="path")

    kept = Kept()
    with pytest.raises(SettingError) as caught, Publisher(outputs(kept, Never())):
        pass
    assert caught.value.key == "outputs.1.path"
    assert kept.calls == ["open", "close"]


class TestReaderThatGoes:
    def test_does_not_end_the_others(self, result: Make, caplog: pytest.LogCaptureFixture) -> None:
        """With another output there, a closed pipe is left alone from then on, with one warning; the others get everything."""
        piped, kept = Kept(), Kept()
        with Publisher(outputs(piped, kept)) as subject:
            subject.publish(result(seq=1), SHOT)
            settle(subject)
            piped.trouble = BrokenPipeError()
            for seq in (2, 3, 4):
                subject.publish(result(seq=seq), SHOT)
                settle(subject)
        assert (piped.seqs, kept.seqs) == ([1], [1, 2, 3, 4])
        assert warnings(caplog) == ["outputs.0 (kept): whoever read it has gone; the other outputs go on"]
        assert subject.lost == {}

    def test_the_last_one_is_told(self, result: Make) -> None:
        """Where nobody is left who takes results, whoever runs the loop is told."""
        piped = Kept()
        piped.trouble = BrokenPipeError()
        with Publisher(outputs(piped)) as subject:
            subject.publish(result(seq=1), SHOT)
            settle(subject)
            with pytest.raises(BrokenPipeError):
                subject.publish(result(seq=2), SHOT)


class TestTrouble:
    def test_is_said_once(self, result: Make, caplog: pytest.LogCaptureFixture) -> None:
        """One warning when it begins, one when it is over, with the number that was lost."""
        kept = Kept()
        with Publisher(outputs(kept)) as subject:
            for seq in range(1, 7):
                kept.trouble = OutputError("the disk is full") if seq in (2, 3, 4) else None
                subject.publish(result(seq=seq), SHOT)
                settle(subject)
                assert bool(subject.troubles) is (seq in (2, 3, 4))
        assert kept.seqs == [1, 5, 6]
        assert subject.lost == {"outputs.0": 3}
        assert warnings(caplog) == [
            "outputs.0 (kept): the disk is full; results are lost there until it works again",
            "outputs.0 (kept): works again; 3 results were lost",
        ]

    def test_that_comes_and_goes_fills_no_log(self, result: Make, caplog: pytest.LogCaptureFixture) -> None:
        """An output that fails every other time is complained of once a minute at most; every loss is counted."""
        kept = Kept()
        with Publisher(outputs(kept)) as subject:
            for seq in range(1, 101):
                kept.trouble = OutputError("a loose contact") if seq % 2 else None
                subject.publish(result(seq=seq), SHOT)
                settle(subject)
        assert subject.lost == {"outputs.0": 50}
        assert len(warnings(caplog)) == 2

    def test_of_many_at_once(self, result: Make) -> None:
        """An error says how many results it cost, one of a tick too; what an output counts itself is added."""
        kept = Kept()

        def tick() -> None:
            raise OutputError("the gathered lines do not fit", lost=7)

        kept.tick = tick  # type: ignore[method-assign]
        kept.lost = 5
        with Publisher(outputs(kept)) as subject:
            kept.wake()
            until(lambda: subject.lost == {"outputs.0": 12})

    def test_of_its_own_making(self, result: Make, caplog: pytest.LogCaptureFixture) -> None:
        """A fault in an output costs its results, says what it was, and stops neither it nor the others."""
        kept, other = Kept(), Kept()
        kept.trouble = ZeroDivisionError("oh")
        with Publisher(outputs(kept, other)) as subject:
            subject.publish(result(seq=1), SHOT)
            settle(subject)
            kept.trouble = None
            subject.publish(result(seq=2), SHOT)
        assert (kept.seqs, other.seqs, subject.lost) == ([2], [1, 2], {"outputs.0": 1})
        assert "unexpected ZeroDivisionError: oh" in warnings(caplog)[0]


class TestSlowOne:
    def test_holds_nobody(self, result: Make, caplog: pytest.LogCaptureFixture) -> None:
        """While one output is stuck, the other has every result; what does not fit into its queue is lost, counted, said once."""
        stuck, other = Kept(), Kept()
        stuck.free.clear()
        with Publisher(outputs(stuck, other)) as subject:
            for seq in range(1, Kept.QUEUE + 101):
                subject.publish(result(seq=seq), SHOT)
                until(lambda: other.seqs[-1:] == [seq])  # noqa: B023
            assert subject.lost == {"outputs.0": 100}
            assert subject.troubles == [("output_backlog", "outputs.0 (kept): is too slow")]
            stuck.free.set()
            until(lambda: len(stuck.seqs) == Kept.QUEUE)
            subject.publish(result(seq=1000), SHOT)
            assert subject.troubles == []
        assert stuck.seqs == [*range(1, Kept.QUEUE + 1), 1000]
        assert warnings(caplog) == [
            f"outputs.0 (kept): {Kept.QUEUE} results wait for it; more are lost until it keeps up",
            "outputs.0 (kept): keeps up again; 100 results were lost",
        ]

    def test_of_files_is_waited_for(self, result: Make) -> None:
        """A file can wait: nothing of it is lost, however slow an output is, nor at its end."""
        slow = Kept()
        slow.takes_s = 0.001
        with Publisher(outputs(slow), patient=True) as subject:
            for seq in range(1, Kept.QUEUE + 201):
                subject.publish(result(seq=seq), SHOT)
        assert slow.seqs == list(range(1, Kept.QUEUE + 201))
        assert subject.lost == {}

    def test_of_files_is_not_waited_for_when_the_daemon_is_to_stop(
        self, result: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not even a file keeps a daemon that is to stop."""
        monkeypatch.setattr(publisher, "FLUSH_S", 0.1)
        stuck = Kept()
        stuck.free.clear()
        with Publisher(outputs(stuck), patient=True) as subject:
            threading.Timer(0.2, lambda: setattr(subject, "stopping", lambda: True)).start()
            for seq in range(1, Kept.QUEUE + 11):
                subject.publish(result(seq=seq), SHOT)
        assert subject.lost == {"outputs.0": Kept.QUEUE + 10}
        stuck.free.set()
        until(lambda: not running())

    def test_is_left_behind_at_the_end(
        self, result: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At the end all outputs have the same few seconds; what one of them still holds then is counted and said."""
        monkeypatch.setattr(publisher, "FLUSH_S", 1.0)
        monkeypatch.setattr(courier, "FINISH_S", 0.2)
        stuck, stuck_too, other = Kept(), Kept(), Kept()
        stuck.free.clear()
        stuck_too.free.clear()
        with Publisher(outputs(stuck, stuck_too, other)) as subject:
            for seq in range(1, 11):
                subject.publish(result(seq=seq), SHOT)
            until(lambda: len(other.seqs) == 10)
            began = time.monotonic()
        assert time.monotonic() - began < LONG_S
        assert len({each._ended_by for each in subject._couriers}) == 1
        assert other.seqs == list(range(1, 11))
        assert subject.lost == {"outputs.0": 10, "outputs.1": 10}
        assert warnings(caplog) == [
            f"outputs.{number} (kept): does not take results in time; 10 are given up" for number in (0, 1)
        ]
        stuck.free.set()
        stuck_too.free.set()
        until(lambda: not running())
        assert len(stuck.seqs) <= 1, "what was given up is not written after all"


class TestTick:
    def test_when_it_is_due(self, result: Make) -> None:
        """An output is called at the time that it asked for, though no result comes."""
        kept, began = Kept(), time.monotonic()
        kept.due = began + 0.05
        with Publisher(outputs(kept)):
            until(lambda: "tick" in kept.calls)
            assert time.monotonic() >= began + 0.05
        assert kept.calls == ["open", "tick", "finish", "close"]

    def test_though_results_never_pause(self, result: Make) -> None:
        """It is called between results as well."""
        kept, waiting = Kept(), []
        kept.free.clear()
        with Publisher(outputs(kept)) as subject:
            for seq in range(1, 201):
                subject.publish(result(seq=seq), SHOT)
            kept.tick = lambda: (waiting.append(subject.waiting), Kept.tick(kept))  # type: ignore[method-assign, return-value]
            kept.due = time.monotonic()
            kept.free.set()
            until(lambda: waiting)
        assert waiting[0] > 100

    def test_when_it_is_woken(self) -> None:
        """Threads of its own may have it called at once."""
        kept = Kept()
        with Publisher(outputs(kept)):
            kept.wake()
            until(lambda: "tick" in kept.calls)


class TestWhen:
    def test_each_output_gets_what_it_wants(self, result: Make) -> None:
        """`when` is looked at for each output by itself; results that it leaves out are seen all the same."""
        cats, everything = Kept(When(labels=("cat",))), Kept()
        with Publisher(outputs(cats, everything)) as subject:
            for seq, label in enumerate(("cat", "dog", "cat"), 1):
                subject.publish(result((label, 0.9), seq=seq), SHOT)
        assert (cats.seqs, everything.seqs) == ([1, 3], [1, 2, 3])
        assert cats.seen == [1, 2, 3]

    def test_a_change_that_was_lost_is_told_later(self, result: Make) -> None:
        """A full queue costs the moment of a change, but not the change."""
        stuck = Kept(When(changed=True, hold=0))
        stuck.QUEUE = 1  # type: ignore[misc]
        stuck.free.clear()
        with Publisher(outputs(stuck)) as subject:
            for seq, label in enumerate(("cat", "dog", "dog"), 1):
                subject.publish(result((label, 0.9), seq=seq), SHOT)
            stuck.free.set()
            settle(subject)
            subject.publish(result(("dog", 0.9), seq=4), SHOT)
        assert stuck.seqs == [1, 4]


def test_saved_files_are_named(result: Make) -> None:
    """Outputs that save files come first, wherever they stand, and all others get their names; not where the queue was full."""

    class Saves(Kept):
        saves = True

        def take(self, result: Result, shot: Any) -> Item:
            return Item(result, saved={"snapshot": f"{result.seq}.jpg"})

    class Names(Kept):
        def take(self, result: Result, shot: Any) -> Item:
            named.append(result.saved.get("snapshot"))
            return Item(result)

    named: list[str | None] = []
    saves = Saves()
    saves.QUEUE = 2  # type: ignore[misc]
    saves.free.clear()
    with Publisher(outputs(Names(), saves)) as subject:
        returned = [subject.publish(result(seq=seq), SHOT) for seq in range(1, 5)]
        saves.free.set()
    assert named == [each.saved.get("snapshot") for each in returned] == ["1.jpg", "2.jpg", None, None]
    assert '"snapshot": "1.jpg"' in returned[0].line()


class TestTakeOver:
    """Another publisher takes the place of one that runs."""

    def test_what_is_the_same_goes_on(self, result: Make) -> None:
        """An output of the same settings is not touched, under whatever key; run and numbers go on; others come and go."""
        kept, leaving = Kept(), Kept(When(min_score=0.5))
        before = Publisher(outputs(kept, leaving))
        with before:
            before.publish(result(seq=before.next_seq()), SHOT)
            coming = Kept(When(min_score=0.1))
            after = Publisher(outputs(coming, Kept()), before=before)
            assert coming.calls == []
            after.take_over(before)
            assert after.outputs["outputs.1"] is kept
            assert (kept.calls, leaving.calls) == (["open"], ["open", "finish", "close"])
            assert (after.run, after.next_seq()) == (before.run, 2)
            after.publish(result(seq=2), SHOT)
            settle(after)
        with_end(after)
        assert (kept.seqs, leaving.seqs, coming.seqs) == ([1, 2], [1], [2])
        assert kept.calls == ["open", "finish", "close"]

    def test_what_waits_comes_along(self, result: Make) -> None:
        """Results that wait for an output that goes on are neither lost nor brought twice; one that ends gets its own first."""
        kept, leaving = Kept(), Kept(When(min_score=0.5))
        before = Publisher(outputs(kept, leaving))
        before.__enter__()
        kept.free.clear()
        leaving.takes_s = 0.01
        for _ in range(20):
            before.publish(result(seq=before.next_seq()), SHOT)
        after = Publisher(outputs(Kept()), before=before)
        after.take_over(before)
        assert leaving.seqs == [*range(1, 21)]
        after.publish(result(seq=after.next_seq()), SHOT)
        kept.free.set()
        with_end(after)
        assert kept.seqs == [*range(1, 22)]

    def test_one_that_is_stuck_goes_on(self, result: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where what is new cannot be opened, also an output that did not end in time goes on, as soon as it can."""
        monkeypatch.setattr(publisher, "FLUSH_S", 0.1)

        class Never(Kept):
            def open(self, origin: Origin) -> None:
                raise SettingError("there is none", key="path")

        stuck = Kept(When(min_score=0.5))
        before = Publisher(outputs(stuck))
        before.__enter__()
        stuck.free.clear()
        before.publish(result(seq=before.next_seq()), SHOT)
        after = Publisher(outputs(Never()), before=before)
        with pytest.raises(SettingError):
            after.take_over(before)
        stuck.free.set()
        for _ in range(5):
            before.publish(result(seq=before.next_seq()), SHOT)
        settle(before)
        with_end(before)
        assert stuck.seqs == [*range(1, 7)]
        assert (before.lost, [call for call in stuck.calls if call != "tick"]) == ({}, ["open", "finish", "close"])

    def test_what_waits_stays_where_it_is(self, result: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where what is new cannot be opened, an output that ended before it had done everything does the rest afterwards."""
        monkeypatch.setattr(publisher, "FLUSH_S", courier.FINISH_S / 2)  # the end is near from its first moment on

        class Never(Kept):
            def open(self, origin: Origin) -> None:
                raise SettingError("there is none", key="path")

        class Held(Kept):
            def write(self, item: Item) -> None:
                if item.result.seq == 1:
                    until(lambda: before._couriers[0]._ended_by)
                super().write(item)

        held = Held(When(min_score=0.5))
        before = Publisher(outputs(held))
        before.__enter__()
        for _ in range(40):
            before.publish(result(seq=before.next_seq()), SHOT)
        with pytest.raises(SettingError):
            Publisher(outputs(Never()), before=before).take_over(before)
        settle(before)
        before.publish(result(seq=before.next_seq()), SHOT)
        settle(before)
        with_end(before)
        assert held.seqs == [*range(1, 42)]
        assert (before.lost, held.calls.count("open"), held.calls.count("close")) == ({}, 2, 2)

    def test_told_to_go_on_as_it_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An output that is told to go on just as its end begins either does, or says that it does not."""
        kept, said = Kept(), []
        subject = courier.Courier("outputs.0", kept)
        teller = threading.Thread(target=lambda: said.append(subject.go_on()))

        def monotonic() -> float:
            """The first time that the end is looked at, somebody calls it off."""
            if teller.ident is None:
                teller.start()
                teller.join(0.1)
            return time.monotonic()

        subject.end(until=time.monotonic())
        monkeypatch.setattr(courier, "time", SimpleNamespace(monotonic=monotonic, sleep=time.sleep))
        subject._work()
        teller.join()
        assert (said, kept.calls) == ([False], ["finish", "close"])

    def test_no_way_back(self, result: Make) -> None:
        """An output that was ended, and cannot be opened again either, is no reason to go on without a word."""

        class Once(Kept):
            def open(self, origin: Origin) -> None:
                if self.calls:
                    raise SettingError("somebody else has it now", key="path")
                super().open(origin)

        before = Publisher(outputs(Once(When(min_score=0.5))))
        before.__enter__()
        after = Publisher(outputs(Once(), Once(When(min_score=0.1))), before=before)
        after.outputs["outputs.1"].calls.append("taken")
        with pytest.raises(
            NoWayBackError, match=r"outputs\.0 \(kept\) cannot be opened again: somebody else has it now"
        ):
            after.take_over(before)
        with_end(before)

    def test_what_was_lost_is_told(self, result: Make) -> None:
        """Results that an output lost before a reload closed it are still lost at the end."""
        leaving = Kept(When(min_score=0.5))
        before = Publisher(outputs(leaving))
        before.__enter__()
        leaving.trouble = OutputError("the disk is full")
        before.publish(result(seq=before.next_seq()), SHOT)
        after = Publisher(outputs(Kept()), before=before)
        after.take_over(before)
        with_end(after)
        assert (after.lost_before, after.reports()) == (1, ["1 results lost at outputs that a reload closed"])

    def test_one_that_does_not_open(self, result: Make) -> None:
        """Then the one before runs on whole: those that were ended for it are opened again, and the error names the key."""

        class Never(Kept):
            def open(self, origin: Origin) -> None:
                raise SettingError("there is none", key="path")

        kept, leaving = Kept(), Kept(When(min_score=0.5))
        before = Publisher(outputs(leaving, kept))
        before.__enter__()
        before.publish(result(seq=before.next_seq()), SHOT)
        coming = Kept(When(min_score=0.1))
        after = Publisher(outputs(coming, Kept(), Never(When(min_score=0.2))), before=before)
        with pytest.raises(SettingError) as caught:
            after.take_over(before)
        assert caught.value.key == "outputs.2.path"
        assert coming.calls == ["open", "close"]
        before.publish(result(seq=before.next_seq()), SHOT)
        with_end(before)
        assert (leaving.seqs, kept.seqs) == ([1, 2], [1, 2])
        assert leaving.calls == ["open", "finish", "close", "open", "finish", "close"]
        assert kept.calls == ["open", "finish", "close"]

    def test_losses_are_counted_on(self, result: Make) -> None:
        """What was lost at an output that is no more is not forgotten."""
        leaving = Kept(When(min_score=0.5))
        leaving.trouble = OutputError("full", lost=1)
        before = Publisher(outputs(leaving))
        before.__enter__()
        before.publish(result(seq=1), SHOT)
        settle(before)
        after = Publisher(outputs(Kept()), before=before)
        after.take_over(before)
        assert (after.lost, after.lost_before) == ({}, 1)
        again = Publisher(outputs(Kept()), before=after)
        again.take_over(after)
        assert again.lost_before == 1
        with_end(again)

    def test_another_origin(self) -> None:
        """Outputs that would notice a difference, another device or other labels, are opened anew, with the run that goes on."""
        kept, other = Kept(), Kept()
        before = Publisher(outputs(kept), Origin(device="one"))
        before.__enter__()
        after = Publisher(outputs(other), Origin(device="two"), before=before)
        after.take_over(before)
        assert after.outputs["outputs.0"] is other
        assert after.origin.run == before.origin.run
        with_end(after)
        assert kept.calls == other.calls == ["open", "finish", "close"]

    def test_one_whose_reader_has_gone(self, result: Make) -> None:
        """It is not taken over: a new one may have another reader."""
        kept, gone = Kept(), Kept(When(min_score=0.5))
        gone.trouble = BrokenPipeError()
        before = Publisher(outputs(kept, gone))
        before.__enter__()
        before.publish(result(seq=1), SHOT)
        until(lambda: not before.waiting)
        new = Kept(When(min_score=0.5))
        after = Publisher(outputs(Kept(), new), before=before)
        assert after.outputs == {"outputs.0": kept, "outputs.1": new}
        after.take_over(before)
        with_end(after)


def with_end(subject: Publisher) -> None:
    subject.__exit__()


class TestStuck:
    def test_for_how_long(self, result: Make) -> None:
        """A call that does not come back is seen, and whether that output ever worked; one that waits for results is not stuck."""
        first, later = Kept(), Kept(When(min_score=0.5))
        subject = Publisher(outputs(first, later))
        with subject:
            assert subject.stuck(0.0) == []
            first.free.clear()
            subject.publish(result(seq=1), SHOT)
            until(lambda: later.seqs == [1])
            later.free.clear()
            subject.publish(result(seq=2), SHOT)
            until(lambda: len(subject.stuck(0.02)) == 2)
            assert [courier.has_worked for courier in subject.stuck(0.02)] == [False, True]
            assert subject.stuck(LONG_S) == []
            first.free.set()
            later.free.set()
            until(lambda: not subject.stuck(0.0))

    def test_troubles_have_codes(self, result: Make) -> None:
        """One that fails and one that is behind are told apart, each under its name."""
        failing, behind = Kept(), Kept(When(min_score=0.5))
        failing.trouble = OutputError("the disk is full")
        behind.free.clear()
        with Publisher(outputs(failing, behind)) as subject:
            for seq in range(1, behind.QUEUE + 5):
                subject.publish(result(seq=seq), SHOT)
            told = [
                "output_failing: outputs.0 (kept): the disk is full",
                "output_backlog: outputs.1 (kept): is too slow",
            ]
            until(lambda: list(map(str, subject.troubles)) == told)
            behind.free.set()
            settle(subject)

    def test_of_files_waiting_is_noted(self, result: Make) -> None:
        """Whoever watches the loop can tell that it waits for an output, as a file may."""
        kept = Kept()
        kept.free.clear()
        subject = Publisher(outputs(kept), patient=True)
        with subject:
            for seq in range(1, kept.QUEUE + 1):
                subject.publish(result(seq=seq), SHOT)
            assert subject.waited_at == 0.0
            late = threading.Thread(target=lambda: subject.publish(result(seq=kept.QUEUE + 1), SHOT))
            late.start()
            until(lambda: subject.waited_at)
            assert time.monotonic() - subject.waited_at < LONG_S
            kept.free.set()
            late.join()


def test_figures_have_their_outputs_key() -> None:
    """Numbers that outputs want to be watched come under their keys."""
    kept = Kept()
    kept.figures = lambda: {"bytes_today": 3}  # type: ignore[method-assign]
    assert Publisher(outputs(Kept(), kept)).figures() == {"outputs.1.bytes_today": 3}


def test_numbers_results() -> None:
    """seq counts from 1; each publisher has a run of its own."""
    one, two = Publisher({}), Publisher({})
    assert [one.next_seq(), one.next_seq(), two.next_seq()] == [1, 2, 1]
    assert one.run != two.run
