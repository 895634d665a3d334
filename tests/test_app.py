"""The web page: its functions through the gradio client, and its process from start to end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from safetensors.torch import save_file

from basicsr.app import free_port, main
from basicsr.archs import build_network
from basicsr.inference.restorer import Restorer
from basicsr.inference.tasks import TASKS, TaskWeights
from basicsr.io.checkpoints import save_weights
from basicsr.io.images import read_image, to_levels, write_png
from basicsr.io.opening import LIMIT_VARIABLE
from basicsr.models import pretrained
from basicsr.page.messages import WorkerSettings
from basicsr.page.storage import Storage
from basicsr.page.worker import Worker
from basicsr.utils.errors import OptionsError

pytest.importorskip("gradio", reason="the page needs gradio (extra app)")
gradio_client = pytest.importorskip("gradio_client")

pytestmark = pytest.mark.filterwarnings("ignore:::gradio")

ROOT = Path(__file__).resolve().parent.parent
NETWORK = {"type": "PReNet", "recurrent_iter": 2, "channels": 8}
IMAGE = np.random.default_rng(0).integers(0, 256, (21, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder for the page, and for weights named `own`, `other` and `shipped`."""
    folder = tmp_path_factory.mktemp("page")
    for seed, name in enumerate(("own", "other", "shipped")):
        torch.manual_seed(seed)
        save_weights(folder / f"{name}.safetensors", build_network(NETWORK).state_dict(), NETWORK)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    """Client of a page for one task, two shipped weights and photographs up to 0.3 megapixels."""
    with pytest.MonkeyPatch.context() as patch:
        (folder / "weights").mkdir()
        for name in ("other", "shipped"):
            shutil.copy(folder / f"{name}.safetensors", folder / "weights")
        patch.setitem(TASKS, "derain", TaskWeights("shipped"))
        patch.setattr(pretrained, "_FOLDERS", (folder / "weights",))
        patch.setattr(tempfile, "tempdir", str(folder))
        with Storage() as storage:
            for name, value in storage.environment().items():
                patch.setenv(name, value)
            patch.setattr(tempfile, "tempdir", None)
            from basicsr.page.examples import write_examples
            from basicsr.page.layout import build_page, launch

            settings = WorkerSettings(storage.folder, device="cpu")
            patch.setenv(LIMIT_VARIABLE, "0.3")
            with Worker(settings) as worker:
                blocks = build_page(worker, storage, write_examples(storage.examples))
                address = launch(blocks, "127.0.0.1", free_port("127.0.0.1", 0), "", 2**20)
                yield gradio_client.Client(
                    address, verbose=False, download_files=folder, analytics_enabled=False
                )
                blocks.close(verbose=False)


@pytest.fixture
def restore(page):
    """Function that restores files by the page's API: its files and its table."""

    def call(*files, weights="of the task", own=None):
        handed = [gradio_client.handle_file(str(file)) for file in files]
        own = gradio_client.handle_file(str(own)) if own else None
        files, table = page.predict(handed, "derain", weights, own, api_name="/restore")
        return [Path(file) for file in files or []], table["data"]

    return call


def expected(folder, name, image):
    network, _ = pretrained.saved_network(folder / f"{name}.safetensors")
    return to_levels(Restorer(network, torch.device("cpu"))(image), image.dtype)


def test_photographs_come_back_in_the_format_they_came_in(restore, folder, tmp_path):
    deep, turned = tmp_path / "deep.png", tmp_path / "turned.jpg"
    write_png(deep, IMAGE.astype(np.uint16) * 257)
    exif, profile = Image.Exif(), ImageCms.createProfile("sRGB")
    exif[271], exif[274] = "Maker", 6
    profile = ImageCms.ImageCmsProfile(profile).tobytes()
    Image.fromarray(IMAGE).save(turned, exif=exif, icc_profile=profile)

    files, table = restore(deep, turned)
    assert [file.name for file in files] == ["deep.png", "turned.jpg"]
    restored = read_image(files[0], bit_depth="as_stored")
    np.testing.assert_array_equal(
        restored, expected(folder, "shipped", IMAGE.astype(np.uint16) * 257)
    )
    with Image.open(files[1]) as photograph:
        assert photograph.getexif()[271] == "Maker"
        assert photograph.getexif()[274] == 6
        assert photograph.info["icc_profile"] == profile
    assert [(row[0], row[1], row[4]) for row in table] == [
        ("deep.png", "30 x 21", "restored"),
        ("turned.jpg", "21 x 30", "restored"),
    ]
    assert all(float(row[2]) >= 0 and float(row[3]) > 0.1 for row in table)


def test_other_weights(restore, folder, tmp_path):
    write_png(tmp_path / "a.png", IMAGE)
    files, _ = restore(tmp_path / "a.png", weights="other")
    np.testing.assert_array_equal(read_image(files[0]), expected(folder, "other", IMAGE))
    files, _ = restore(tmp_path / "a.png", own=folder / "own.safetensors")
    np.testing.assert_array_equal(read_image(files[0]), expected(folder, "own", IMAGE))


def test_a_file_that_cannot_be_restored_is_named_and_the_others_are_restored(restore, tmp_path):
    write_png(tmp_path / "a.png", IMAGE)
    (tmp_path / "broken.jpg").write_text("no photograph")
    write_png(tmp_path / "large.png", np.zeros((500, 700, 3), np.uint8))
    files, table = restore(tmp_path / "broken.jpg", tmp_path / "large.png", tmp_path / "a.png")
    assert [file.name for file in files] == ["a.png"]
    assert table[0][4].startswith("not a readable image")
    assert "(700 x 500 pixels; the limit is 0.3 megapixels; reduce its size)" in table[1][4]
    assert table[2][4] == "restored"


def test_unsuitable_weights_are_messages(restore, folder, tmp_path):
    write_png(tmp_path / "a.png", IMAGE)
    (tmp_path / "no.safetensors").write_text("no weights")
    save_file(build_network(NETWORK).state_dict(), tmp_path / "published.safetensors")
    for name, message in (
        ("no", "no.safetensors: damaged"),
        ("published", "published.safetensors: does not say which network it holds; it looks"),
    ):
        files, table = restore(tmp_path / "a.png", own=tmp_path / f"{name}.safetensors")
        assert files == []
        assert table[0][4].startswith(message)
    assert table[0][4].endswith("; choose weights that this project has trained or converted")


PHOTOGRAPH = [{"path": "a.png", "meta": {"_type": "gradio.FileData"}}]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((None, "derain", "of the task", None), "Choose photographs first"),
        (([], "denoise", "of the task", None), "denoise is not in the list of choices"),
        (([], "derain", "/etc/own.safetensors", None), "not in the list of choices"),
        ((PHOTOGRAPH, None, "of the task", None), "Choose a task and weights first"),
        ((PHOTOGRAPH, "derain", None, None), "Choose a task and weights first"),
        (("/etc/passwd", "derain", "of the task", None), "sent as a list of uploaded files"),
        (([{"path": "/etc/passwd"}], "derain", "of the task", None), "sent as a list of uploaded"),
        (([], "derain", "of the task", 7), "own weights as one uploaded file"),
    ],
)
def test_unsuitable_values_are_messages_of_one_line(page, tmp_path, capfd, values, message):
    if values[0] is PHOTOGRAPH:
        write_png(tmp_path / "a.png", IMAGE)
        values = ([gradio_client.handle_file(str(tmp_path / "a.png"))], *values[1:])
    with pytest.raises(gradio_client.exceptions.AppError, match=message) as raised:
        page.predict(*values, api_name="/restore")
    assert "\n" not in str(raised.value)
    assert "Traceback" not in capfd.readouterr().err


def test_two_users_wait_for_each_other_and_get_their_own_results(page, folder, tmp_path):
    images = [IMAGE, IMAGE[::-1].copy()]
    jobs = []
    for number, image in enumerate(images):
        write_png(tmp_path / f"{number}.png", image)
        user = gradio_client.Client(
            page.src, verbose=False, download_files=tmp_path, analytics_enabled=False
        )
        photograph = gradio_client.handle_file(str(tmp_path / f"{number}.png"))
        jobs.append(user.submit([photograph], "derain", "of the task", None, api_name="/restore"))
    for job, image in zip(jobs, images, strict=True):
        (file,), _ = job.result()
        np.testing.assert_array_equal(read_image(file), expected(folder, "shipped", image))


def test_the_page_names_no_other_host_to_load_from(page):
    import httpx

    answer = httpx.get(page.src)
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    assert "fonts.googleapis" not in answer.text
    assert "cdnjs" not in answer.text


@pytest.fixture
def view():
    """Page of a real browser; needs Chromium and the package playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as driver:
        # the sandbox of Chromium does not work for root
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


def test_in_a_browser(page, view, folder, tmp_path):
    """Choose a good and a broken file, restore, drag the divider, zoom, download."""
    write_png(tmp_path / "a.png", IMAGE)
    (tmp_path / "b.png").write_text("no photograph")
    failures = []
    view.on("pageerror", lambda error: failures.append(error))
    view.on("requestfailed", lambda request: failures.append(request.url))
    view.goto(page.src)
    chosen = [str(tmp_path / name) for name in ("a.png", "b.png")]
    view.set_input_files("#photographs input[type=file]", chosen)
    view.wait_for_selector("#photographs a[download] >> nth=1")
    view.click("#restore")
    view.wait_for_selector("text=b.png: not a readable image")
    with view.expect_download() as download:
        view.click("#restored a[download]")
    download.value.save_as(tmp_path / "restored.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "restored.png"), expected(folder, "shipped", IMAGE)
    )

    divider = view.locator("#comparison .inner")
    before = divider.bounding_box()
    middle = before["y"] + before["height"] / 2
    view.mouse.move(before["x"], middle)
    view.mouse.down()
    view.mouse.move(before["x"] - 200, middle, steps=5)
    view.mouse.up()
    assert divider.bounding_box()["x"] == pytest.approx(before["x"] - 200, abs=5)
    picture = view.locator("#comparison img").first
    width = picture.bounding_box()["width"]
    view.mouse.move(before["x"] + 100, middle)
    view.mouse.wheel(0, -300)
    view.wait_for_timeout(500)
    assert picture.bounding_box()["width"] > width
    assert failures == []


def test_pasted_files_are_added(page, view):
    view.goto(page.src)
    view.wait_for_selector("#photographs input[type=file]", state="attached")
    view.evaluate(
        """() => {
            const data = new DataTransfer();
            data.items.add(new File(["x"], "pasted.png", {type: "image/png"}));
            document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data}));
        }"""
    )
    view.wait_for_selector("#photographs a[download='pasted.png']")


def start(folder, *arguments):
    """Start the page with `folder` for temporary files; return the process when it serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", "basicsr.app", "--port", "0", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "HOME": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith("the page is at http://127.0.0.1:")
    return process


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_nothing_is_left_behind(tmp_path, number):
    process = start(tmp_path)
    assert [path.name[:11] for path in tmp_path.iterdir()] == ["derain-app-"]
    process.send_signal(number)
    assert process.wait(timeout=60) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    for _ in range(300):  # after SIGKILL the restoring process notices it, and removes the folder
        if not any(tmp_path.iterdir()):
            break
        time.sleep(0.1)
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_cannot_be_listened_on_is_a_one_line_error(monkeypatch, capsys):
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit) as stopped:
            main(["--port", str(port)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        f"error: --host 127.0.0.1 --port {port}: cannot be listened on (Address already in use); "
        "choose others\n"
    )
    with pytest.raises(OptionsError, match="--port 70000: cannot be listened on"):
        free_port("127.0.0.1", 70000)
    assert free_port("127.0.0.1", 0) > 0


@pytest.mark.parametrize(
    ("program", "usage"),
    [("bin/derain-app", "derain-app"), ("basicsr/app.py", "python -m basicsr.app")],
)
def test_the_help_names_the_command_that_was_called(monkeypatch, capsys, program, usage):
    monkeypatch.setattr("sys.argv", [program])
    with pytest.raises(SystemExit):
        main(["--help"])
    assert capsys.readouterr().out.startswith(f"usage: {usage} [-h]")
