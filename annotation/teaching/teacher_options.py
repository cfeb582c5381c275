"""The options by which a command names a teacher, what it is told and what it may cost; the same for every command.

The one surprising fact: a key goes only to the address that it was set for, so `--base-url` leaves the key of the
settings behind.
"""

import math
import sys
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from annotation.fairface import AGES
from annotation.store import Store
from annotation.teaching.generate import Limits
from annotation.teaching.prices import Price, price_of
from annotation.teaching.teacher import Parameters, Teacher
from annotation.teaching.usage_policy import OPENAI_POLICY, POLICY_SUBJECT, is_openai
from facellm.config import Settings, TeacherEndpoint
from facellm.errors import ConfigError
from facellm.remote_server import Server

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"

BaseUrl = Annotated[
    str | None, typer.Option(help="An OpenAI-compatible server, such as http://127.0.0.1:8000/v1; else OpenAI.")
]
KeyVariable = Annotated[
    str | None, typer.Option(help=f"The environment variable that holds the key; {OPENAI_KEY} for OpenAI.")
]
Concurrency = Annotated[int, typer.Option(min=1, max=1000, help="The most requests at once.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds to wait for an answer.")]
MaxCost = Annotated[float | None, typer.Option(min=0, help="Stop before so many USD are spent.")]
PriceOption = Annotated[
    str | None, typer.Option(help="USD per million input,output tokens where prices.json does not know the model.")
]
ExcludeAges = Annotated[str | None, typer.Option(help="Leave images with these age labels out, such as 0-2,3-9,10-19.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")]
Temperature = Annotated[float | None, typer.Option(min=0, max=2, help="The server's own unless given.")]
Seed = Annotated[int | None, typer.Option(help="For servers that heed it.")]
Detail = Annotated[str, typer.Option(help="How closely the picture is looked at: low, high, original or auto.")]
ReasoningEffort = Annotated[str | None, typer.Option(help="For models that think first, such as none or low.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say how much it would be, and send nothing.")]
AcceptUsagePolicy = Annotated[
    bool, typer.Option("--accept-usage-policy", help="You have read what is said before the first run with OpenAI.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")]


@dataclass(frozen=True)
class Connection:
    """A teacher, what it is told, and how much a run may take."""

    endpoint: TeacherEndpoint
    parameters: Parameters
    limits: Limits
    timeout_s: float

    def teacher(self) -> Teacher:
        """The teacher, with its key.

        Raises:
            ConfigError: there is no key where one is to be.
            ModelError: address or key cannot be one.
        """
        server = Server(self.endpoint.base_url, self.endpoint.api_key, self.timeout_s)
        return Teacher(server, self.endpoint.model, self.parameters)


def connection(
    settings: Settings,
    model: str,
    base_url: str | None,
    key_variable: str | None,
    *,
    concurrency: int,
    timeout: float,
    max_cost: float | None,
    price: str | None,
    **told: Any,
) -> Connection:
    """What these options mean.

    Args:
        settings: know teachers by name.
        model: such a name, or a model's.
        base_url: as typed, as all that follow.
        key_variable: the environment variable of the key.
        concurrency: the most requests at once.
        timeout: seconds.
        max_cost: USD.
        price: USD per million tokens in and out, with a comma between.
        told: the fields of `teacher.Parameters`.

    Raises:
        ConfigError: one of them cannot be.
    """
    endpoint = _endpoint(settings, model, base_url, key_variable, price)
    limits = Limits(concurrency, max_cost, _price(endpoint))
    if max_cost is not None and limits.price is None:
        raise ConfigError(
            f"No price of {endpoint.model} is known, so --max-cost cannot be kept. Add --price IN,OUT in USD per "
            "million tokens; for a server of your own, 0,0."
        )
    return Connection(endpoint, _parameters(**told), limits, timeout)


def typed_ages(text: str | None) -> tuple[str, ...]:
    """The ages of --exclude-ages.

    Raises:
        ConfigError: one of them is none of FairFace's.
    """
    wanted = [] if text is None else [part.strip() for part in text.split(",") if part.strip()]
    if unknown := [age for age in wanted if age not in AGES]:
        raise ConfigError(f"--exclude-ages names {', '.join(unknown)}. Expected some of {', '.join(AGES)}.")
    return tuple(wanted)


def check_policy(store: Store, base_url: str, accepted: bool, who: str) -> None:
    """Once before the first run with OpenAI, somebody has to have read what its usage policy says about this work.

    Raises:
        ConfigError: nobody has.
    """
    if not is_openai(base_url) or store.ledger.acknowledged(POLICY_SUBJECT):
        return
    if not accepted and sys.stdin.isatty():
        typer.echo(OPENAI_POLICY)
        accepted = typer.confirm("Go on?")
    if not accepted:
        raise ConfigError(
            f"{urlsplit(base_url).hostname} has a usage policy that concerns this work, and nobody has acknowledged it "
            "yet. Run it in a terminal to read what it says, or add --accept-usage-policy if you have."
        )
    store.ledger.acknowledge(POLICY_SUBJECT, who)


def _endpoint(
    settings: Settings, model: str, base_url: str | None, key_variable: str | None, price: str | None
) -> TeacherEndpoint:
    """The teacher that is meant; what was typed wins over the settings."""
    if not model.strip():
        raise ConfigError("--model is empty. Name a model of the server, or one of the setting teachers.")
    known = settings.teachers.get(model)
    url = base_url or (known.base_url if known else OPENAI_URL)
    same = known is not None and url == known.base_url  # a key goes only where it was meant to go
    variable = key_variable or (known.key_variable if known and same else None)
    if variable is None and url == OPENAI_URL:
        variable = OPENAI_KEY
    return TeacherEndpoint(
        base_url=url,
        model=known.model if known else model,
        key_variable=variable,
        price=_typed_price(price) if price else (known.price if known else None),
    )


def _typed_price(text: str) -> tuple[float, float]:
    try:
        into, out = (float(part) for part in text.split(","))
    except ValueError:
        into = out = -1.0
    if not all(0 <= each < math.inf for each in (into, out)):
        raise ConfigError(
            f"--price is {text!r}. Expected two numbers such as 2.5,10: USD per million tokens in and out."
        )
    return into, out


def _price(endpoint: TeacherEndpoint) -> Price | None:
    if endpoint.price is None:
        return price_of(endpoint.model) if is_openai(endpoint.base_url) else None
    into, out = endpoint.price
    return Price(input=into, cached_input=into, output=out, batch_factor=0.5)


def _parameters(**told: Any) -> Parameters:
    try:
        return Parameters.model_validate(told)
    except ValueError as error:
        first = error.errors()[0]  # type: ignore[attr-defined]
        name = ".".join(map(str, first["loc"]))
        raise ConfigError(f"--{name} is {first['input']!r}: {first['msg']}.") from error
