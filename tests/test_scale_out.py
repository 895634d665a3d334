"""The same run on one process and on several of torchrun (gloo on CPUs)."""

import json
import os
import re
import signal

import pytest
from runs import run, start, timeless_metrics
from test_survival import children_of, options, states, waits_for


def require_close(folder, straight, tolerance=1e-5):
    """Compare loss curve and scores with those of a single process, within float32 rounding."""
    ours, theirs = timeless_metrics(folder), timeless_metrics(straight)
    assert [line.keys() for line in ours] == [line.keys() for line in theirs]
    for own, other in zip(ours, theirs, strict=True):
        for key in own.keys() - {"train/peak_memory_gib"}:
            assert own[key] == pytest.approx(other[key], rel=tolerance, abs=tolerance)


def kill_a_rank(launcher):
    """Kill the last process that torchrun started; return its id."""
    victim = max(children_of(launcher))
    os.kill(victim, signal.SIGKILL)
    return victim


@pytest.mark.parametrize(
    ("ranks", "more"),
    [
        (2, []),
        pytest.param(4, [], marks=pytest.mark.slow),
        (2, ["train:accumulation_steps=2", "train:sharded=true"]),
        pytest.param(2, ["train:accumulation_steps=2"], marks=pytest.mark.slow),
        pytest.param(2, ["train:sharded=true"], marks=pytest.mark.slow),
    ],
)
def test_ranks_train_as_one_process(trained, workplace, ranks, more):
    name = re.sub(r"\W+", "_", f"ranks_{ranks}_{'_'.join(more)}")
    done = run("train.py", *options(name, *more), cwd=workplace, ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished; weights are in") == 1
    require_close(workplace / "experiments" / name, trained)


@pytest.mark.parametrize(
    "then", [1, pytest.param(4, marks=pytest.mark.slow)], ids=["one rank", "four ranks"]
)
def test_a_sharded_run_of_two_resumes_with_another_number(trained, workplace, then):
    """Stopped by a signal to the launcher, which forwards it; then resumed."""
    name = f"shrinking_{then}"
    folder = workplace / "experiments" / name
    process = start("train.py", *options(name, "train:sharded=true"), cwd=workplace, ranks=2)
    metrics = folder / "metrics.jsonl"
    assert waits_for(lambda: metrics.exists() and metrics.read_text(), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=100) != 0
    assert states(folder), (workplace / "started.log").read_text()
    ranks = None if then == 1 else then
    done = run("train.py", *options(name), "--auto_resume", cwd=workplace, ranks=ranks)
    assert done.returncode == 0, done.stderr
    require_close(folder, trained)


def test_ranks_that_share_a_test_set_give_the_same_scores(trained, workplace):
    """Five images on two ranks."""
    scores = []
    for name, ranks in (("alone", None), ("shared", 2)):
        more = [f"name={name}", "val:save_img=false"]
        done = run("test.py", "-opt", "test.yml", "--force_yml", *more, cwd=workplace, ranks=ranks)
        assert done.returncode == 0, done.stderr
        folder = workplace / "results" / name
        results = json.loads((folder / "scores.json").read_text())["results"]
        scores.append((results, (folder / "scores.csv").read_text()))
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_a_killed_rank_ends_the_others(trained, workplace):
    folder = workplace / "experiments" / "bereaved"
    process = start("train.py", *options("bereaved"), cwd=workplace, ranks=2)
    assert waits_for(lambda: states(folder), process)
    victim = kill_a_rank(process)
    assert process.wait(timeout=100) != 0
    log = (workplace / "started.log").read_text()
    assert re.search(rf"exitcode\s*: -9 \(pid: {victim}\)", log)


def test_a_killed_rank_is_named_and_the_run_restarts(trained, workplace):
    """With torchrun --max-restarts, all ranks are started again and resume."""
    folder = workplace / "experiments" / "restarted"
    process = start("train.py", *options("restarted"), cwd=workplace, ranks=2,
                    torchrun=["--max-restarts", "1"])  # fmt: skip
    assert waits_for(lambda: states(folder), process)
    victim = kill_a_rank(process)
    log = workplace / "started.log"
    assert process.wait(timeout=200) == 0, log.read_text()
    assert re.search(rf"failed \(exitcode: -9\).*\(pid: {victim}\)", log.read_text())
    assert "rank 0: lost the connection to another process of this run" in log.read_text()
    require_close(folder, trained)


@pytest.mark.slow
def test_ranks_skip_the_same_steps_and_abort_together(workplace):
    """The first update makes the weights too large; each rank saves its share of the last batch."""
    growing = (
        "train:optim_g={type: SGD, lr: 1000}",
        "train:losses:0:weight=1.0e6",
        "train:nonfinite_limit=3",
        "train:ema_decay=0",
    )
    done = run("train.py", *options("exploding_ranks", *growing), cwd=workplace, ranks=2)
    assert done.returncode != 0
    folder = workplace / "experiments" / "exploding_ranks"
    saved = sorted(file.name for file in (folder / "nonfinite").iterdir())
    assert saved == ["00000004_rank0.npz", "00000004_rank1.npz"]
    assert "step skipped (3 in a row, 3 in all)" in (folder / "train.log").read_text()
