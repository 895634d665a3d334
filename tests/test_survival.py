"""Training runs that are killed, stopped, or run into a full disk, bad data or bad gradients."""

import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest
from runs import ITERATIONS, run, start, timeless_metrics

from basicsr.training.run_folder import RunFolder


def waits_for(condition, process=None, seconds=200):
    """Return whether `condition` becomes true while `process` runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline or (process and process.poll() is not None):
            return condition()
        time.sleep(0.02)
    return True


def children_of(process):
    """Return the ids of its child processes: loader workers, or torchrun's ranks."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in children.split()]


def options(name, *more):
    return ["-opt", "train.yml", "--force_yml", f"name={name}", *more]


def require_same_run(folder, straight, weights=("net_g_latest", "net_g_best")):
    """Compare weights, optimizer, scores and log with the uninterrupted run, bit for bit."""
    for name in weights:
        file = f"models/{name}.safetensors"
        assert (folder / file).read_bytes() == (straight / file).read_bytes()
    ours, theirs = (RunFolder(each, keep=2).latest_state() for each in (folder, straight))
    for key in ("iteration", "best", "loss_sums", "nonfinite"):
        assert ours[key] == theirs[key]
    for number, state in theirs["optimizer"]["state"].items():
        for name, value in state.items():
            assert (ours["optimizer"]["state"][number][name] == value).all()
    assert timeless_metrics(folder) == timeless_metrics(straight)


def states(folder):
    return list((folder / "training_states").glob("*.json"))


def test_a_killed_run_resumes_bit_for_bit(trained, workplace):
    """SIGKILL in the middle of the run; resumed with another number of workers."""
    process = start("train.py", *options("killed"), cwd=workplace)
    folder = workplace / "experiments" / "killed"
    assert waits_for(lambda: states(folder), process), "no state was saved in time"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "training_states/00000012.json").exists(), "it ended before it was killed"
    more = ("datasets:train:num_worker_per_gpu=2", "logger:use_tb_logger=false", "--auto_resume")
    done = run("train.py", *options("killed", *more), cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert "iterations 5 to 12" in done.stdout
    require_same_run(folder, trained)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_random_kills_change_nothing(trained, workplace):
    """SIGKILL to the process group at random moments; resumed each time until it is finished."""
    folder = workplace / "experiments" / "mauled"
    rng, began = random.Random(0), time.monotonic()
    process = start("train.py", *options("mauled"), cwd=workplace)
    waits_for(lambda: states(folder), process)
    reach = time.monotonic() - began + 2  # seconds from the start to somewhere in the middle
    kills = finished = 0
    while kills < 20:
        time.sleep(rng.uniform(0, reach))
        killed = process.poll() is None
        os.killpg(process.pid, signal.SIGKILL) if killed else None
        process.wait()
        kills += killed
        if (folder / "training_states/00000012.json").exists():
            require_same_run(folder, trained)
            finished += 1  # also of runs that ended before they were killed
            for name in ("mauled", "mauled_archived"):
                for old in (workplace / "experiments").glob(f"{name}*"):
                    old.rename(old.with_name(f"done_{finished}_{old.name}"))
        process = start("train.py", *options("mauled"), "--auto_resume", cwd=workplace)
    assert process.wait() == 0
    require_same_run(folder, trained)


@pytest.mark.parametrize(
    "name",
    [
        "SIGTERM",
        pytest.param("SIGINT", marks=pytest.mark.slow),
        pytest.param("SIGUSR1", marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_exits_with_code_75(trained, workplace, name):
    """The signal goes to every process of the group, as a scheduler sends it."""
    run_name = f"stopped{name}"
    folder = workplace / "experiments" / run_name
    process = start("train.py", *options(run_name, "logger:save_checkpoint_freq=1000"),
                    cwd=workplace)  # fmt: skip
    metrics = folder / "metrics.jsonl"
    assert waits_for(lambda: metrics.exists() and metrics.read_text(), process)
    os.killpg(process.pid, signal.Signals[name])
    assert process.wait(timeout=60) == 75
    (saved,) = states(folder)
    assert 3 <= int(saved.stem) < ITERATIONS
    log = (folder / "train.log").read_text()
    assert f"stopped by {name}; everything is saved, resume with --auto_resume" in log
    if name == "SIGTERM":
        done = run("train.py", *options(run_name), "--auto_resume", cwd=workplace)
        assert done.returncode == 0, done.stderr
        require_same_run(folder, trained)


def test_changed_options_and_data_are_named_and_not_resumed(trained, workplace):
    longer = options("longer", "train:total_iter=14", "datasets:train:patches:1:iters=7",
                     "train:optim_g:lr=0.01",
                     f"path:resume_state={trained}/training_states/00000012.state")  # fmt: skip
    photograph = workplace / "clean" / "4.png"
    content = photograph.read_bytes()
    try:
        photograph.write_bytes((workplace / "clean" / "3.png").read_bytes())
        refused = run("train.py", *longer, cwd=workplace)
        forced = run("train.py", *longer, "--force", cwd=workplace)
    finally:
        photograph.write_bytes(content)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "train.optim_g.lr is 0.01, was 0.001; datasets." in refused.stderr
    assert "datasets.train: of the 5 images some have changed" in refused.stderr
    assert forced.returncode == 0, forced.stderr
    assert "resumed because of --force, although datasets.train" in forced.stdout
    assert timeless_metrics(workplace / "experiments" / "longer")[-1]["iteration"] == 14


def test_a_finished_run_is_not_continued(trained, workplace):
    again = run("train.py", *options("tiny"), "--auto_resume", cwd=workplace)
    assert again.returncode == 0, again.stderr
    assert "tiny: is complete, after 12 iterations" in again.stdout


def test_a_full_disk_is_reported_and_survived(trained, workplace):
    """Files as large as a training state cannot be written until the limit is lifted."""
    folder = workplace / "experiments" / "full"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        process = start("train.py", *options("full"), cwd=workplace)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log = folder / "train.log"
    message = "THE CHECKPOINT COULD NOT BE SAVED"
    assert waits_for(lambda: log.exists() and message in log.read_text(), process)
    assert not states(folder)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)
    assert process.wait(timeout=120) == 0
    assert (folder / "training_states/00000012.json").exists()
    require_same_run(folder, trained, weights=["net_g_latest"])


def test_a_loader_that_hangs_is_reported_with_stacks(trained, workplace):
    process = start("train.py", *options("hanging", "train:stall_timeout=12"), cwd=workplace)
    metrics = workplace / "experiments" / "hanging" / "metrics.jsonl"
    assert waits_for(lambda: metrics.exists() and metrics.read_text(), process)
    (worker,) = children_of(process)
    os.kill(worker, signal.SIGSTOP)
    assert process.wait(timeout=60) == 124
    os.kill(worker, signal.SIGKILL)
    log = (workplace / "started.log").read_text()
    assert "error: no progress for 12 seconds" in log
    assert "in step" in log  # the stack of the main thread


def test_non_finite_steps_are_skipped_counted_and_abort(workplace):
    growing = (
        "train:optim_g={type: SGD, lr: 1000}",
        "train:losses=[{type: MSELoss, weight: 1.0e6}]",
        "train:nonfinite_limit=3",
        "train:ema_decay=0",
    )
    done = run("train.py", *options("exploding", *growing), cwd=workplace)
    assert done.returncode == 2
    folder = workplace / "experiments" / "exploding"
    last = done.stderr.strip().splitlines()[-1]
    assert "3 steps in a row had a non-finite loss or gradient" in last
    assert "step skipped (2 in a row, 2 in all)" in (folder / "train.log").read_text()
    assert list((folder / "nonfinite").glob("*_rank0.npz"))


def test_broken_images_end_a_run_or_are_skipped(trained, workplace):
    broken = workplace / "with_broken"
    broken.mkdir()
    for i in range(5):
        content = (workplace / "clean" / f"{i}.png").read_bytes()
        (broken / f"{i}.png").write_bytes(content[:200] if i == 2 else content)
    here = ("datasets:train:dataroot_gt=with_broken",)
    stopped = run("train.py", *options("raises", *here), cwd=workplace)
    assert stopped.returncode == 2
    assert "with_broken/2.png" in stopped.stderr
    skips = ("datasets:train:on_bad_image=skip", "train:total_iter=6",
             "datasets:train:patches=[{size: 16, batch_size: 4, iters: 6}]")  # fmt: skip
    done = run("train.py", *options("skips", *here, *skips), cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("image skipped, number 1 of at most 100") == 1
    assert timeless_metrics(workplace / "experiments" / "skips")[-1]["iteration"] == 6
