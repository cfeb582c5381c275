"""FaceLLM Studio: python app.py, or make run.

Puts the parts together: settings, store, model, tabs, launch. On the first start with an empty data directory it
seeds a small data set, so that every tab has something to work on. The address is that of GRADIO_SERVER_NAME and
GRADIO_SERVER_PORT, else http://127.0.0.1:7860.

The one surprising fact: left to itself, Gradio takes the next port where one is taken. That would put a second app on
the same data directory without a word, so here a taken port is an error.
"""

import errno
import importlib.util
import json
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.http_server import INITIAL_PORT_VALUE as PORT
from gradio.http_server import LOCALHOST_NAME as HOST

from annotation.accounts.accounts_tab import build_account_bar
from annotation.accounts.identity import refusal
from annotation.accounts.sign_in import SignIn, Way
from annotation.accounts.sign_in_routes import sign_in_routes
from annotation.dataset_tab import build_dataset_tab
from annotation.models import Role
from annotation.review_tab import build_review_tab
from annotation.seed import open_seeded
from annotation.store import Store
from annotation.team_tab import build_team_tab
from annotation.vote_export import export_votes
from facellm import faces
from facellm.answerers import BASE, Answerers
from facellm.blind_tab import VoteBook
from facellm.chat_session import Exchange
from facellm.chat_tab import build_chat_tab
from facellm.config import Settings, load_settings
from facellm.data import SNAPSHOT_FILE
from facellm.errors import ConfigError, FaceLLMError
from facellm.model import ChatModel
from facellm.remote import RemoteModel
from facellm.sources import is_repository
from facellm.training import jobs
from facellm.training.training_tab import Pairs, build_training_tab

OPEN_TO_ALL = (
    "Everybody who can reach this page may change everything. Let people sign in: python -m annotation accounts add "
    "NAME --role admin"
)
HEADER = "<h1>FaceLLM Studio</h1><p>Chat with a face model, review what it learns from, teach it.</p>"
EXAMPLE_FACES = (11, 17, 23, 54, 41, 31, 62, 86)  # bright, sharp and varied
ROOT = Path(__file__).parent
STYLES = [
    *sorted((ROOT / "facellm").rglob("*.css")),
    ROOT / "annotation/dataset.css",
    ROOT / "annotation/agreement/agreement.css",
    ROOT / "annotation/accounts/accounts.css",
    ROOT / "annotation/team/team.css",
]
SCRIPT = ROOT / "facellm" / "studio.js"
SYSTEM_FONTS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")


def main() -> None:
    """Start the app and serve until it is interrupted."""
    try:
        settings = load_settings()
        check_port()
        check_adapter(settings)
        store = open_seeded(settings)
        sign_in = SignIn(store.accounts, settings)
        settings, model = load_model(settings)
        answerers = Answerers(
            model,
            adapters=lambda: adapters(settings),
            checkpoints=settings.all_checkpoints,
            remotes=remotes(settings),
        )
    except FaceLLMError as error:
        sys.exit(f"error: {error}")
    try:
        app = build_app(settings, store, answerers, sign_in)
        _, url, _ = app.launch(**launch_options(settings, sign_in))
        print(f"FaceLLM Studio is at {url}", flush=True)
        if sign_in.way() is Way.NONE and HOST not in ("127.0.0.1", "localhost"):
            print(OPEN_TO_ALL, file=sys.stderr, flush=True)
        app.block_thread()
    finally:
        if model is not None:
            model.close()
        store.close()


def check_port() -> None:
    """Say that the page cannot be served before the data is seeded and the model loaded.

    Raises:
        ConfigError: another process listens there, or the address is none of this machine's.
    """
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, PORT))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"The port {PORT} is taken by another process, perhaps another FaceLLM Studio: stop that, or set "
                "GRADIO_SERVER_PORT to a free port."
            ) from error
        raise ConfigError(
            f"The page cannot be served at {HOST}:{PORT} ({error.strerror}). Set GRADIO_SERVER_NAME and "
            "GRADIO_SERVER_PORT to an address of this machine."
        ) from error


def check_adapter(settings: Settings) -> None:
    """Say at the start that the adapter of the settings is missing, not when somebody asks it.

    Raises:
        ConfigError: it is not a folder with an adapter.
    """
    path = settings.adapter_path
    place, _, within = str(path).partition("#")
    if path is not None and not is_repository(place) and not (Path(place) / within / "adapter_config.json").is_file():
        raise ConfigError(
            f"The setting adapter names {path}, which has no adapter_config.json. Expected a folder with a LoRA "
            "adapter, as PEFT saves it; set FACELLM_ADAPTER to one, or to none."
        )


def load_model(settings: Settings) -> tuple[Settings, ChatModel | None]:
    """The base model, None where all models are remote; and the settings, changed to the embedded model if need be.

    Nobody needs a network: where no model is named, and the one for a GPU cannot be had, the embedded one answers.

    Raises:
        FaceLLMError: the model that is named cannot be loaded.
    """
    if settings.is_remote_only:
        return settings, None
    how: dict[str, Any] = {"device": settings.device, "quantization": settings.quantization}
    try:
        return settings, ChatModel.load(settings.base_checkpoint, **how)
    except FaceLLMError as error:
        if settings.base_model != "auto" or settings.base_checkpoint == settings.embedded.base_checkpoint:
            raise
        print(f"{error}\nThe embedded model answers instead.", file=sys.stderr, flush=True)
        return settings.embedded, ChatModel.load(settings.embedded.base_checkpoint, device=settings.device)


def remotes(settings: Settings) -> list[RemoteModel]:
    """The models of other servers, and the adapters that these have loaded; what fails there is said and left out.

    Raises:
        FaceLLMError: a key is missing, or an address is none.
    """
    found = []
    for name, server in settings.remotes.items():
        base = RemoteModel(name, base_url=server.base_url, model=server.model, api_key=server.api_key)
        found.append(base)
        for adapter, path in server.adapters.items():
            try:
                found.append(base.load_adapter(adapter, path))
            except FaceLLMError as error:  # the server may be down today, or the adapter have no effect there
                print(error, file=sys.stderr, flush=True)
    return found


def build_app(settings: Settings, store: Store, answerers: Answerers, sign_in: SignIn) -> gr.Blocks:
    """The page: a tab for each step of the loop, and the one wire between them."""

    def curators_only(request: gr.Request, what: str) -> str:
        return refusal(sign_in.who(request), Role.CURATOR, what)

    with gr.Blocks(title="FaceLLM Studio", analytics_enabled=False, delete_cache=(3600, 3600)) as app:
        with gr.Row(elem_id="studio-top"):
            gr.HTML(HEADER, elem_id="studio-header")
            build_account_bar(sign_in)
        with gr.Tabs(elem_id="studio-tabs") as tabs:
            with gr.Tab("Chat", id="chat"):
                chat = build_chat_tab(
                    answerers,
                    examples=example_faces(settings.data_dir),
                    settings=settings,
                    first_choice=first_choice(settings),
                    send_to_review=partial(send_to_review, store),
                    book=VoteBook(
                        store.add_vote, store.votes, lambda path: export_votes(path, store.votes()), curators_only
                    ),
                )
            with gr.Tab("Dataset", id="dataset") as dataset_tab:
                dataset = build_dataset_tab(store, settings, sign_in.who)
            with gr.Tab("Review", id="review"):
                build_review_tab(store, sign_in.who)
            with gr.Tab("Team", id="team") as team_tab:
                team = build_team_tab(store, sign_in.who)
            with gr.Tab("Fine-tune", id="fine-tune") as fine_tune_tab:
                training = build_training_tab(
                    settings,
                    pairs=Pairs(
                        counts=store.accepted_counts,
                        examples=store.accepted_outlines,
                        snapshot=lambda name: take_snapshot(settings, store, name),
                    ),
                    bases=[settings.base_checkpoint],
                    refusal=curators_only,
                )
        # Reviewing changes what the Dataset and the Fine-tune tab count; a finished run is one more model to chat with.
        dataset_tab.select(
            dataset.refresh, dataset.inputs, dataset.shown, show_progress="hidden", api_visibility="private"
        )
        team_tab.select(team.refresh, team.inputs, team.shown, show_progress="hidden", api_visibility="private")
        fine_tune_tab.select(
            training.refresh, training.selected_run, training.shown, show_progress="hidden", api_visibility="private"
        )
        training.chat_button.click(
            lambda session, run: [gr.Tabs(selected="chat"), *chat.choose(session, run)],
            [chat.session, training.selected_run],
            [tabs, *chat.shown],
            show_progress="hidden",
            api_visibility="private",
        )
    return app


def take_snapshot(settings: Settings, store: Store, name: str) -> jobs.SnapshotRef:
    """Freeze the accepted pairs for a training run: what `python -m annotation snapshot NAME` does."""
    snapshot = store.snapshot(name)
    return jobs.SnapshotRef(snapshot.name, snapshot.sha256, settings.snapshots_dir / snapshot.name / SNAPSHOT_FILE)


def first_choice(settings: Settings) -> list[str]:
    """Who answers until a visitor chooses: the base, beside what was made of it."""
    if settings.is_remote_only:
        return list(settings.remotes)
    own = [] if settings.adapter_name is None else [settings.adapter_name]
    return [BASE, *settings.all_checkpoints, *own][:2]


def send_to_review(store: Store, name: str, source: str, exchange: Exchange, earlier: Sequence[Exchange]) -> str:
    """Store a chat exchange as a pair that waits for review; returns what to tell the visitor."""
    told = {
        "sampling": asdict(exchange.sampling),
        "earlier": [] if exchange.afresh else [[each.question, each.answer] for each in earlier],
    }
    store.add_exchange(
        [picture.image for picture in exchange.pictures],
        exchange.question,
        exchange.answer.strip(),
        attribute=exchange.attribute,
        teacher=name,
        teacher_source=source,
        parameters=json.dumps(told),
    )
    return f"Sent: what {name} answered waits in the Review tab."


def adapters(settings: Settings) -> dict[str, Path]:
    """The adapters that can answer beside the base, by name: the configured one, then those of finished runs.

    Of two of one name, as where the adapter of another data directory's run-1 is configured, the configured one wins.
    """
    configured = {}
    if settings.adapter_path is not None and settings.adapter_name is not None:
        configured[settings.adapter_name] = settings.adapter_path
    return configured | jobs.finished_adapters(settings.runs_dir, settings.base_checkpoint) | configured


def example_faces(data_dir: Path) -> list[Path]:
    """Rendered faces that a visitor can click instead of uploading one."""
    folder = data_dir / "examples"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in EXAMPLE_FACES:
        path = folder / f"face-{number}.png"
        if not path.exists():
            faces.render(faces.sample(number), 384).save(path)
        paths.append(path)
    return paths


def launch_options(settings: Settings, sign_in: SignIn) -> dict[str, Any]:
    """How the page is served: nothing leaves the machine or is kept of a visitor, of files only the example faces."""
    return {
        "server_port": PORT,
        "app_kwargs": {"routes": sign_in_routes(sign_in)},
        "theme": theme(),
        "css_paths": STYLES,
        "js": SCRIPT.read_text(encoding="utf-8"),
        "quiet": True,
        "prevent_thread_lock": True,
        "footer_links": [],
        "run_history": False,
        "ssr_mode": False,
        "enable_monitoring": False,
        "mcp_server": importlib.util.find_spec("mcp") is not None,  # of gradio[mcp]: /ask and /compare as tools
        "max_file_size": int(settings.max_image_mb * 1024 * 1024),
        "allowed_paths": [str(settings.data_dir / "examples")],
    }


def theme() -> gr.themes.Base:
    """Quiet colours and the system's own fonts: nothing is fetched from elsewhere."""
    return gr.themes.Soft(
        primary_hue="indigo",
        neutral_hue="slate",
        font=SYSTEM_FONTS,
        font_mono=("ui-monospace", "Consolas", "monospace"),
    ).set(
        block_border_width="1px",
        block_border_color="*border_color_primary",
        block_shadow="none",
        block_title_background_fill="transparent",
        block_title_background_fill_dark="transparent",
        block_title_padding="0",
        block_title_text_color="*body_text_color_subdued",
        block_title_text_color_dark="*body_text_color_subdued",
        block_title_text_size="*text_sm",
        block_title_text_weight="400",
        input_border_width="1px",
        input_shadow="none",
        input_shadow_focus="none",
        button_primary_shadow="none",
        button_secondary_shadow="none",
    )


if __name__ == "__main__":
    main()
