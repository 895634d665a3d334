"""Layout and events of the web page, in gradio."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from pydantic import ValidationError
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware

from basicsr.inference.tasks import TASKS, TaskWeights, shipped_for
from basicsr.io.images import SUFFIXES
from basicsr.models.pretrained import shipped_weights
from basicsr.page.messages import Request, Restored
from basicsr.page.storage import Storage
from basicsr.page.worker import Worker
from basicsr.utils.errors import UserError

TITLE = "Restore photographs"
COLUMNS = ["photograph", "pixels", "seconds", "memory (GiB)", "result"]
ASSETS = Path(__file__).parent
DEFAULT_TASK = "derain"
AUTOMATIC = "of the task"
"""Choice of weights: those of the task for RGB and for gray photographs."""
LIST_HEIGHT = 240
"""Height of lists of files, in pixels; longer ones scroll."""
QUEUE = 32
"""Calls that may wait; more are refused."""
POLICY = (
    "default-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:"
)
Pictures = list[tuple[str, str, str]]
"""Names of photographs, with the previews of both versions."""


class Page(gr.Blocks):
    """Page that answers unsuitable values, which only programs send, with messages of one line."""

    async def preprocess_data(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().preprocess_data(*arguments, **options)
        except FileNotFoundError:
            message = "The file was deleted, as all uploads are after an hour; upload it again."
        except gr.Error as error:
            message = error.message
        except ValidationError:
            message = (
                "Photographs are sent as a list of uploaded files, and own weights as one uploaded "
                "file; 'Use via API' on the page shows how."
            )
        except Exception as error:  # of gradio, for any other value
            message = f"{error}; 'Use via API' on the page shows what to send"
        raise _error(html.escape(" ".join(message.split()), quote=False))


def _error(message: str) -> gr.Error:
    return gr.Error(message, print_exception=False)


def build_page(worker: Worker, storage: Storage, examples: Sequence[Path]) -> gr.Blocks:
    """Return the page.

    Args:
        worker: process that restores.
        storage: folder of the page.
        examples: photographs to try.

    Raises:
        CheckpointError: no weights are shipped.
    """
    tasks = shipped_tasks()

    def restore(
        photographs: list[str] | None,
        task: str | None = DEFAULT_TASK,
        weights: str | None = AUTOMATIC,
        own_weights: str | None = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how gradio finds it)
    ) -> Iterator[Any]:
        """Restore photographs: the files as they came, and a table of time and memory."""
        if not photographs:
            raise _error("Choose photographs first.")
        if task is None or weights is None:  # which only programs send
            raise _error("Choose a task and weights first.")
        shipped = shipped_weights()
        chosen = tasks[task].names() if weights == AUTOMATIC else [weights]
        networks = [Path(own_weights)] if own_weights else [shipped[name] for name in chosen]
        files: list[str] = []
        rows: list[list[Any]] = []
        pictures: Pictures = []
        for i, source in enumerate(map(Path, photographs)):
            request = Request(source, tuple(networks), storage.new_folder())
            try:
                for answer in worker.restore(request):
                    if isinstance(answer, Restored):
                        files.append(str(answer.file))
                        pictures.append((source.name, str(answer.before), str(answer.after)))
                        rows.append(_row(source.name, answer))
                    else:
                        number = f"{i + 1} of {len(photographs)}"
                        words = filter(None, (source.name, number, answer.time_left))
                        progress((i + answer.part) / len(photographs), ", ".join(words))
                        yield gr.skip()  # the user may stop it here
            except UserError as error:
                gr.Warning(html.escape(str(error), quote=False), duration=None)
                message = str(error).removeprefix(f"{source.name}: ")
                rows.append([source.name, "", "", "", message])
            yield files or None, rows, pictures

    with Page(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}")
        pictures = gr.State([])
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                photographs = gr.File(
                    label="Photographs: drop, choose or paste them",
                    file_count="multiple",
                    file_types=sorted(SUFFIXES),
                    height=LIST_HEIGHT,
                    elem_id="photographs",
                )
                offered = gr.Gallery(
                    [str(example) for example in examples],
                    label="Or try one of these",
                    columns=len(examples),
                    height=130,
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_id="examples",
                )
                task = gr.Dropdown(list(tasks), value=next(iter(tasks)), label="Task")
                chosen = gr.Dropdown(
                    [AUTOMATIC, *sorted(shipped_weights())], value=AUTOMATIC, label="Weights"
                )
                with gr.Accordion("Weights of your own", open=False):
                    own = gr.File(label=".safetensors file", file_types=[".safetensors"])
                with gr.Row():
                    start = gr.Button("Restore", variant="primary", elem_id="restore")
                    stop = gr.Button("Stop", elem_id="stop")
            with gr.Column(scale=5, min_width=320):
                slider = gr.ImageSlider(
                    label="before | after: drag the divider, scroll to zoom",
                    max_height=640,
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="comparison",
                )
                shown = gr.Radio([], label="Shown", visible=False, elem_id="shown")
                table = gr.Dataframe(
                    headers=COLUMNS,
                    column_widths=["20%", "14%", "10%", "14%", "42%"],
                    label="Time and memory",
                    wrap=True,
                    interactive=False,
                )
                restored = gr.File(
                    label="Restored files",
                    height=LIST_HEIGHT,
                    interactive=False,
                    elem_id="restored",
                )

        offered.select(_example(examples), None, photographs, api_visibility="private")
        run = start.click(
            restore,
            [photographs, task, chosen, own],
            [restored, table, pictures],
            api_name="restore",
            concurrency_limit=1,
            show_progress_on=[table],
        )
        stop.click(None, cancels=[run], api_visibility="private")
        pictures.change(_choices, [pictures, shown], shown, api_visibility="private")
        gr.on(
            [shown.change, pictures.change],
            _pair,
            [pictures, shown],
            slider,
            api_visibility="private",
            show_progress="hidden",
        )
    return page


def shipped_tasks() -> dict[str, TaskWeights]:
    """Return the tasks whose weights are shipped. Raises CheckpointError if there are none."""
    names = shipped_weights()
    tasks = {task: shipped_for(task, names) for task in TASKS if TASKS[task].rgb in names}
    return tasks or {DEFAULT_TASK: shipped_for(DEFAULT_TASK, names)}


def _row(name: str, restored: Restored) -> list[Any]:
    size = f"{restored.width} x {restored.height}"
    return [name, size, f"{restored.seconds:.1f}", f"{restored.memory_gib:.2f}", "restored"]


def _example(examples: Sequence[Path]) -> Any:
    def choose(event: gr.SelectData) -> list[str]:
        return [str(examples[event.index])]

    return choose


def _choices(pictures: Pictures, shown: int | None) -> gr.Radio:
    """Offer the pictures by the names of their photographs, if there are several."""
    names = [(name, i) for i, (name, _, _) in enumerate(pictures)]
    return gr.Radio(names, value=shown or 0, visible=len(names) > 1)


def _pair(pictures: Pictures, shown: int | None) -> tuple[str, str] | None:
    if not pictures:
        return None
    _, before, after = pictures[min(shown or 0, len(pictures) - 1)]
    return before, after


def launch(page: gr.Blocks, host: str, port: int, root_path: str, file_bytes: int) -> str:
    """Serve the page from other threads; return its address.

    Args:
        page: page to serve.
        host: address to listen on.
        port: port to listen on.
        root_path: path of the page behind a reverse proxy.
        file_bytes: size of the largest file that may be uploaded.
    """
    page.queue(max_size=QUEUE, api_open=False)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        root_path=root_path,
        max_file_size=file_bytes,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        footer_links=["api"],
        head=f"<script>{(ASSETS / 'paste.js').read_text()}</script>",
        app_kwargs={"middleware": [Middleware(LocalOnly)]},
    )
    return address


class LocalOnly:
    """Middleware that forbids browsers to load anything from other hosts."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        await self.app(scope, receive, send_with_policy if scope["type"] == "http" else send)
