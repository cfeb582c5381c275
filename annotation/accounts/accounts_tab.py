"""Who is signed in, at the top of the page, and the admins' panel of all accounts.

`build_account_bar` and `build_accounts_panel` are called inside an open Gradio context. The one surprising fact: the
forms of the bar talk to the routes of sign_in_routes.py and not to Gradio, whose events cannot set a cookie.
"""

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import gradio as gr

from annotation.accounts.identity import Who, require
from annotation.accounts.passwords import generate_password
from annotation.accounts.sign_in import SignIn, Way
from annotation.models import Reviewer, Role
from annotation.store import Store
from facellm.errors import DataError, FaceLLMError

HERE: Final = Path(__file__).resolve().parent
QUIET: Final[dict[str, Any]] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
ROLES: Final = [role.value for role in Role]
NO_ACCOUNTS: Final = (
    "There are no accounts yet. Until there is one with a password, everybody who can open this page is an admin, "
    "except on a Space. The first has to be an admin's."
)


def build_account_bar(sign_in: SignIn) -> None:
    """The button to sign in, or who has; on a Space with Hugging Face's sign-in, Gradio's button for that."""

    def me(_request: dict[str, Any], request: gr.Request) -> dict[str, str]:
        identity = sign_in.who(request)
        return {"name": identity.name, "role": identity.role.value, "way": sign_in.way().value}

    gr.HTML(
        html_template=_asset("account_bar.html"),
        css_template=_asset("account_bar.css"),
        js_on_load=_asset("account_bar.js"),
        server_functions=[me],
        apply_default_css=False,
        elem_id="account-bar",
    )
    if sign_in.way() is Way.HUGGINGFACE:
        gr.LoginButton(
            "Sign in with Hugging Face", "Sign out", size="sm", min_width=0, scale=0, elem_id="account-huggingface"
        )


def build_accounts_panel(store: Store, who: Who) -> None:
    """All accounts, and forms to change them; shown to admins only, and every event asks for one."""
    panel = _Panel(store, who)
    with gr.Column(visible=False, elem_id="accounts") as box:
        listed = gr.HTML(elem_id="accounts-list", padding=False)
        with gr.Row(elem_id="accounts-change"):
            chosen = gr.Dropdown([], label="Account", min_width=140)
            role = gr.Dropdown(ROLES, label="Role", min_width=120)
            change = gr.Button("Change role", size="sm", scale=0, min_width=110)
            password = gr.Button("New password", size="sm", scale=0, min_width=120)
            switch = gr.Button("Deactivate", size="sm", scale=0, min_width=110)
        with gr.Row(elem_id="accounts-add"):
            name = gr.Textbox(label="New account", placeholder="name", max_lines=1, max_length=40, min_width=140)
            huggingface = gr.Textbox(
                label="Hugging Face user, in place of a password", max_lines=1, max_length=100, min_width=140
            )
            new_role = gr.Dropdown(ROLES, value=Role.REVIEWER.value, label="Role", min_width=120)
            add = gr.Button("Add", size="sm", variant="primary", scale=0, min_width=80)
    # Outside the box: whoever adds the first account is no admin from then on, and has to see its password.
    told = gr.HTML(elem_id="accounts-told", padding=False)
    view = [box, listed, chosen, role, switch]
    gr.on(None, panel.arrive, None, view, **QUIET)  # when the page is loaded
    chosen.input(panel.show, chosen, view, **QUIET)
    change.click(panel.set_role, [chosen, role], [told, *view], **QUIET)
    password.click(panel.new_password, chosen, [told, *view], **QUIET)
    switch.click(panel.switch, chosen, [told, *view], **QUIET)
    add.click(panel.add, [name, huggingface, new_role], [name, huggingface, told, *view], **QUIET)


class _Panel:
    """What happens on the panel's events; nothing is kept between two of them."""

    def __init__(self, store: Store, who: Who) -> None:
        self._accounts = store.accounts
        self._who = who

    def arrive(self, request: gr.Request) -> list[Any]:
        """The page was loaded."""
        return self.show(None, request)

    def show(self, chosen: str | None, request: gr.Request) -> list[Any]:
        """Everything anew; to others than admins, nothing."""
        if not self._who(request).may(Role.ADMIN):
            return [gr.update(visible=False), "", gr.update(choices=[], value=None), None, gr.skip()]
        accounts = self._accounts.all()
        account = next((each for each in accounts if each.name == chosen), accounts[0] if accounts else None)
        return [
            gr.update(visible=True),
            _list_html(accounts),
            gr.update(choices=[each.name for each in accounts], value=account and account.name),
            account and account.role.value,
            gr.update(value="Activate" if account and not account.active else "Deactivate"),
        ]

    def set_role(self, chosen: str | None, role: str | None, request: gr.Request) -> list[Any]:
        """Give the chosen account another role."""

        def work() -> str:
            account = self._accounts.set_role(_chosen(chosen), Role(role or ""))
            return f"{_name(account)} is {account.role.value} now."

        return self._changed("change a role", work, chosen, request)

    def new_password(self, chosen: str | None, request: gr.Request) -> list[Any]:
        """Make a new password for the chosen account, and show it this one time."""

        def work() -> str:
            account = self._accounts.set_password(_chosen(chosen), made := generate_password())
            return _password_html(account, made)

        return self._changed("set a password", work, chosen, request)

    def switch(self, chosen: str | None, request: gr.Request) -> list[Any]:
        """Deactivate the chosen account, or activate it again."""

        def work() -> str:
            name = _chosen(chosen)
            before = next((each.active for each in self._accounts.all() if each.name == name), True)
            account = self._accounts.set_active(name, not before)
            return f"{_name(account)} can {'sign in again' if account.active else 'no longer sign in'}."

        return self._changed("deactivate or activate an account", work, chosen, request)

    def add(self, name: str, huggingface: str, role: str, request: gr.Request) -> list[Any]:
        """Add an account: with a password that is made and shown this one time, or of a Hugging Face user."""

        def work() -> str:
            made = "" if huggingface.strip() else generate_password()
            account = self._accounts.add(name, Role(role), password=made, huggingface=huggingface)
            return _password_html(account, made) if made else f"{_name(account)} can sign in with Hugging Face."

        told, *view = self._changed("add an account", work, name.strip(), request)
        kept = gr.skip() if isinstance(told, dict) else ""
        return [kept, kept, told, *view]

    def _changed(self, what: str, work: Callable[[], str], chosen: str | None, request: gr.Request) -> list[Any]:
        """Do it if an admin asks; what there is to say (skipped if it was refused), and everything anew."""
        try:
            require(self._who(request), Role.ADMIN, what)
            said: Any = f'<p role="status">{work()}</p>'
        except FaceLLMError as error:
            gr.Warning(html.escape(str(error)), title="")
            said = gr.skip()
        return [said, *self.show(chosen, request)]


def _chosen(name: str | None) -> str:
    if not name:
        raise DataError("No account is chosen. Choose one, or add one first.")
    return name


def _name(account: Reviewer) -> str:
    return f"<b>{html.escape(account.name)}</b>"


def _password_html(account: Reviewer, password: str) -> str:
    return (
        f"{_name(account)} signs in with the password <code>{html.escape(password)}</code>. It is shown only now: "
        "pass it on, and have it changed after the first sign-in. Changes of who may do what show after a reload."
    )


def _list_html(accounts: list[Reviewer]) -> str:
    """The table of all accounts."""
    if not accounts:
        return f"<h3>Accounts</h3><p>{NO_ACCOUNTS}</p>"
    head = "<tr><th>Name</th><th>Role</th><th>Signs in with</th><th>Since</th></tr>"
    rows = "".join(
        f'<tr class="{"" if each.active else "accounts-off"}"><td>{html.escape(each.name)}</td>'
        f"<td>{each.role.value if each.active else 'deactivated'}</td><td>{_ways(each)}</td>"
        f"<td>{each.created_at.astimezone():%-d %b %Y}</td></tr>"
        for each in accounts
    )
    return f"<h3>Accounts</h3><table>{head}{rows}</table>"


def _ways(account: Reviewer) -> str:
    named = f"Hugging Face ({html.escape(account.huggingface)})" if account.huggingface else ""
    return ", ".join(filter(None, ["password" if account.password else "", named]))


def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
