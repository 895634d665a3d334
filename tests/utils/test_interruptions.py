"""Stop requests by signal, and the watchdog."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from basicsr.utils import interruptions
from basicsr.utils.errors import Stopped
from basicsr.utils.interruptions import StopRequest


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_requests_a_stop(name):
    before = signal.getsignal(signal.Signals[name])
    with StopRequest() as stop:
        stop.check()
        os.kill(os.getpid(), signal.Signals[name])
        with pytest.raises(Stopped, match=name):
            stop.check()
        os.kill(os.getpid(), signal.Signals[name])  # passed on by torchrun as well
    assert signal.getsignal(signal.Signals[name]) is before


def test_a_later_second_ctrl_c_interrupts(monkeypatch):
    monkeypatch.setattr(interruptions, "_REPEAT_WINDOW", 0.0)
    with StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_stalled_process_prints_its_stacks_and_exits():
    program = """
        import time
        from basicsr.utils.interruptions import Watchdog
        def reading_from_a_dead_server():
            time.sleep(60)
        with Watchdog(0.5) as watchdog:
            for _ in range(4):
                time.sleep(0.2)
                watchdog.beat()
            reading_from_a_dead_server()
    """
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    )
    assert ended.returncode == 124
    assert time.monotonic() - began < 50
    assert "reading_from_a_dead_server" in ended.stderr
    assert "error: no progress for 0.5 seconds" in ended.stderr
