"""Stop requests by signal, and the watchdog."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from runs import ENVIRONMENT, command


def run_program(program, **options):
    """Run it as a process of its own: signals never go to the process that runs the tests."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=ENVIRONMENT, capture_output=True, text=True, **options,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_requests_a_stop(name):
    program = f"""
        import os, signal
        from basicsr.utils.errors import Stopped
        from basicsr.utils.interruptions import StopRequest
        before = signal.getsignal(signal.{name})
        with StopRequest() as stop:
            stop.check()
            os.kill(os.getpid(), signal.{name})
            try:
                stop.check()
            except Stopped as stopped:
                print(stopped)
            os.kill(os.getpid(), signal.{name})  # passed on by torchrun as well
        assert signal.getsignal(signal.{name}) is before
    """
    ended = run_program(program)
    assert (ended.returncode, ended.stdout) == (0, f"{name}\n")
    assert ended.stderr == f"\n{name}: stopping after this step, saving first\n"


def test_a_later_second_ctrl_c_interrupts():
    program = """
        import os, signal, time
        from basicsr.utils import interruptions
        interruptions._REPEAT_WINDOW = 0.0
        with interruptions.StopRequest():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                print("interrupted")
    """
    ended = run_program(program)
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n")


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
    ended = run_program(program)
    assert ended.returncode == 124
    assert time.monotonic() - began < 50
    assert "reading_from_a_dead_server" in ended.stderr
    assert "error: no progress for 0.5 seconds" in ended.stderr


@pytest.mark.parametrize(
    ("name", "code", "line"),
    [
        ("SIGTERM", 75, "error: stopped by SIGTERM; start the same command again"),
        ("SIGUSR1", 75, "error: stopped by SIGUSR1; start the same command again"),
        ("SIGINT", 130, "error: interrupted; start the same command again"),
    ],
)
def test_a_signal_ends_a_program_without_a_stack_trace(name, code, line):
    """Even where an exception would be swallowed."""
    program = f"""
        import os, signal
        from basicsr.utils.interruptions import exit_on_signals
        exit_on_signals()
        class Swallows:
            def __del__(self):
                os.kill(os.getpid(), signal.{name})
        print("printed before")
        Swallows()
        print("never reached")
    """
    ended = run_program(program)
    assert (ended.returncode, ended.stdout) == (code, "printed before\n")
    assert ended.stderr == f"{line}\n"


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("train.py", ["-opt", "none.yml"]),
        ("test.py", ["-opt", "none.yml"]),
        ("restore.py", ["none.png", "-o", "out"]),
    ],
)
def test_entry_points_can_be_stopped_while_they_import(script, arguments, tmp_path):
    """SIGTERM arrives when the shared libraries of PyTorch are being loaded."""
    process = subprocess.Popen(
        command(script, *arguments),
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    maps = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and b"libtorch" not in maps.read_bytes():
        time.sleep(0.01)
    process.terminate()
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 75
    assert complaint == b"error: stopped by SIGTERM; start the same command again\n"


def test_commands_of_the_installed_package_can_be_stopped(tmp_path):
    """They import `main` instead of running the file."""
    program = """
        import os, signal, sys
        from basicsr.train import main
        import basicsr.options
        basicsr.options.load_options = lambda *a: os.kill(os.getpid(), signal.SIGTERM)
        sys.argv = ["derain-train", "-opt", "x.yml"]
        main()
    """
    ended = run_program(program, cwd=tmp_path)
    assert ended.returncode == 75
    assert ended.stderr == "error: stopped by SIGTERM; start the same command again\n"


def test_ctrl_c_raises_again_once_a_command_runs():
    program = """
        import os, signal
        from basicsr.utils import interruptions
        interruptions.exit_on_signals()
        interruptions.interrupt_by_exception()
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            print("interrupted")
    """
    ended = run_program(program)
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n")
