"""A request to stop: noted at once, and reaching into a step only where that does no harm."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tunesmith.train.requests import Interrupted, StopRequest


@pytest.fixture
def request_() -> Iterator[StopRequest]:
    """A request that listens to signals for one test."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    handlers = {number: signal.getsignal(number) for number in numbers}
    timer = signal.getitimer(signal.ITIMER_REAL)
    signal.setitimer(signal.ITIMER_REAL, 0)
    made = StopRequest(patience=0.05)
    made.listen()
    yield made
    made.served()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.setitimer(signal.ITIMER_REAL, *timer)


def wait(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.005)


def test_a_signal_is_noted_and_the_next_one_ends_the_process(request_: StopRequest) -> None:
    assert not request_.asked
    assert not request_.overdue
    os.kill(os.getpid(), signal.SIGTERM)
    wait(0.01)
    assert request_.asked
    assert not request_.overdue
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    wait(0.06)  # nothing is going on that could be given up
    assert request_.overdue


def test_a_step_that_takes_too_long_is_given_up(request_: StopRequest) -> None:
    request_.within_step = True
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Interrupted):
        wait(5)


def test_what_is_served_is_left_alone(request_: StopRequest) -> None:
    request_.within_step = True
    request_.ask()
    request_.served()
    wait(0.1)


def test_without_listening_a_request_sets_no_alarm() -> None:
    made = StopRequest(patience=0.0)
    timer = signal.getitimer(signal.ITIMER_REAL)[1]
    made.ask()
    assert made.overdue
    assert signal.getitimer(signal.ITIMER_REAL)[1] == timer


def test_another_thread_asks_through_the_main_one(request_: StopRequest) -> None:
    thread = threading.Thread(target=request_.ask_from_thread)
    thread.start()
    thread.join()
    wait(0.01)
    assert request_.asked
    deaf = StopRequest()
    deaf.ask_from_thread()
    assert deaf.asked
