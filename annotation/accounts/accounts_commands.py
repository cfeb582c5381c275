"""The commands about accounts: python -m annotation accounts --help.

The one surprising fact: no command takes a password as an argument, because the machine's other users could read it in
the list of processes, and the shell would keep it. It is asked for, or read from the standard input.
"""

import json
import sys
from contextlib import closing
from typing import Annotated

import typer

from annotation.models import Reviewer, Role
from annotation.store import Store
from facellm.config import load_settings
from facellm.errors import ConfigError

accounts_app = typer.Typer(no_args_is_help=True, help="Who may sign in, and what they may do.")
app = typer.Typer()
app.add_typer(accounts_app, name="accounts")

Name = Annotated[str, typer.Argument(help="The account's name; upper and lower case are the same.")]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the standard input's first line.")
]


@accounts_app.command("add")
def add_command(
    name: Name,
    role: Annotated[Role, typer.Option(help="What they may do; the first account has to be an admin's.")],
    password_stdin: PasswordStdin = False,
    huggingface: Annotated[
        str, typer.Option(help="The Hugging Face user that they are on a Space, in place of a password.")
    ] = "",
) -> None:
    """Add an account. From the first password on, everybody has to sign in to change anything."""
    with _store() as store:
        password = "" if huggingface and not password_stdin else _password(password_stdin)
        print(_line(store.accounts.add(name, role, password=password, huggingface=huggingface)))


@accounts_app.command("list")
def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list instead of a table.")] = False,
) -> None:
    """Show all accounts, deactivated ones too."""
    with _store() as store:
        accounts = store.accounts.all()
    if as_json:
        kept = {"name", "role", "huggingface", "active", "created_at"}
        rows = [each.model_dump(mode="json", include=kept) | {"password": bool(each.password)} for each in accounts]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif accounts:
        print("\n".join(map(_line, accounts)))
    else:
        print("No accounts: everybody who can open the page is an admin. Add one with the role admin.")


@accounts_app.command("role")
def role_command(name: Name, role: Annotated[Role, typer.Argument(help="The new role.")]) -> None:
    """Give somebody another role; it holds at once."""
    with _store() as store:
        print(_line(store.accounts.set_role(name, role)))


@accounts_app.command("password")
def password_command(name: Name, password_stdin: PasswordStdin = False) -> None:
    """Set somebody's password; all their sessions end."""
    with _store() as store:
        print(_line(store.accounts.set_password(name, _password(password_stdin))))


@accounts_app.command("deactivate")
def deactivate_command(name: Name) -> None:
    """Let somebody sign in no longer, and sign them out; what they decided stays."""
    with _store() as store:
        print(_line(store.accounts.set_active(name, False)))


@accounts_app.command("activate")
def activate_command(name: Name) -> None:
    """Let somebody sign in again."""
    with _store() as store:
        print(_line(store.accounts.set_active(name, True)))


def _password(from_stdin: bool) -> str:
    """The password, asked for twice and not shown; or the standard input's first line.

    Raises:
        ConfigError: there is nobody to ask.
    """
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise ConfigError("There is no terminal to ask for the password. Pipe it in, with --password-stdin.")
    asked: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return asked


def _line(account: Reviewer) -> str:
    """Name, role, and how they sign in."""
    ways = ["password"] if account.password else []
    ways += [f"Hugging Face: {account.huggingface}"] if account.huggingface else []
    state = account.role.value if account.active else f"{account.role.value}, deactivated"
    return f"{account.name}  {state}  ({', '.join(ways)})"


def _store() -> closing[Store]:
    return closing(Store.of(load_settings()))
