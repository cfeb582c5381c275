"""LoRA adapters that a vLLM server loads while it runs, each tested for an effect.

The server has to be started with `--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, on a private network: who
may load an adapter may make it read files. The path is one of the server's disk.

The one surprising fact: vLLM loads an adapter whose key names do not fit the model without any error, and then answers
as the base (vllm#34186). So base and adapter are asked the same few things greedily. If all log-probabilities are equal
within `TOLERANCE`, the adapter has no effect and is refused. A server that gives no log-probabilities is asked for
longer answers, and their texts are compared: there an adapter that changes little may be refused wrongly.
"""

import math
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import openai

from facellm.conversation import Turn
from facellm.data import Attribute
from facellm.errors import FaceLLMError, ModelError
from facellm.faces import render, sample
from facellm.remote_messages import chat_messages
from facellm.remote_server import Server

TOLERANCE = 1e-6
LOGPROB_TOKENS = 4
TEXT_TOKENS = 64
NO_ENDPOINT = (404, 405, 501)


@dataclass(frozen=True)
class _Reply:
    text: str
    logprobs: tuple[dict[str, float], ...]  # for each token the likeliest ones; empty where the server gives none


def load(server: Server, base: str, name: str, path: str) -> None:
    """Load an adapter beside the base and make sure that it has an effect; unload it again if anything is wrong.

    One that is there already, from the same path, is tested only, and stays whatever comes out.

    Raises:
        ModelError, BusyError: see `RemoteModel.load_adapter`.
    """
    with ExitStack() as undo:
        if _load(server, name, path):
            undo.callback(_forget, server, name)
        if not _has_effect(server, base, name):
            raise ModelError(
                f"The adapter {name} from {path} has no effect: {server.base_url} answers with it exactly as {base} "
                "does. Mostly its key names are not those that the server expects; export it for that model."
            )
        undo.pop_all()


def unload(server: Server, name: str) -> None:
    """Unload an adapter.

    Raises:
        ModelError, BusyError: there is none of that name, or the server cannot.
    """
    with server.explained(f"the unloading of {name}"), server.client() as client:
        try:
            client.post("/unload_lora_adapter", body={"lora_name": name}, cast_to=str)
        except openai.APIStatusError as error:
            if error.status_code in NO_ENDPOINT and name not in server.said(error):
                raise _no_endpoint(server) from None
            raise


def _load(server: Server, name: str, path: str) -> bool:
    """Whether it was loaded; False if it was there already."""
    with server.explained(f"the adapter {name}"), server.client() as client:
        try:
            client.post("/load_lora_adapter", body={"lora_name": name, "lora_path": path}, cast_to=str)
            return True
        except openai.APIStatusError as error:
            said = server.said(error)
            if error.status_code not in (400, *NO_ENDPOINT):
                raise
            if error.status_code in NO_ENDPOINT and "no adapter found" not in said.lower() and path not in said:
                raise _no_endpoint(server) from None
            if "already been loaded" not in said:
                raise ModelError(
                    f"{server.base_url} cannot load the adapter {name} from {path} ({error.status_code}): {said} "
                    "The path has to be one of the machine on which the server runs."
                ) from None
    loaded_from = server.models().get(name)
    if loaded_from != path:
        raise ModelError(
            f"{server.base_url} has another adapter {name} already, from {loaded_from or 'an unknown place'}. "
            f"Unload that one, or load {path} under another name."
        )
    return False


def _forget(server: Server, name: str) -> None:
    """Unload what must not stay. What was wrong with it is the error to see, not that this did not work either."""
    with suppress(FaceLLMError):
        unload(server, name)


def _no_endpoint(server: Server) -> ModelError:
    return ModelError(
        f"{server.base_url} does not load or unload adapters while it runs. Start vLLM with --enable-lora and the "
        "variable VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, on a private network."
    )


def _has_effect(server: Server, base: str, adapter: str) -> bool:
    """Whether the adapter answers anything else than the base does."""
    probes = [chat_messages([turn]) for turn in _probes()]
    with server.client() as client:
        for probe in probes:
            plain, adapted = (_reply(server, client, model, probe) for model in (base, adapter))
            if not _equal(plain, adapted):
                return True
    return False


def _probes() -> list[Turn]:
    face = render(sample(0), 128)
    return [
        Turn("user", Attribute.DETAIL.question, (face,)),
        Turn("user", Attribute.EXPRESSION.question, (face,)),
        Turn("user", "Describe the skin of an old face in one sentence."),
        Turn("user", "Count from one to five."),
    ]


def _reply(server: Server, client: openai.OpenAI, model: str, probe: list[dict[str, Any]]) -> _Reply:
    """The model's greedy reply, with log-probabilities where the server gives them.

    Asked twice, and the second counts: the first fills the server's cache of prefixes, and what is computed from that
    cache can differ in the last bits from what is not, which would look like an effect.
    """
    with server.explained(model):
        try:
            _ask(client, model, probe, LOGPROB_TOKENS, logprobs=True, top_logprobs=5)
            reply = _ask(client, model, probe, LOGPROB_TOKENS, logprobs=True, top_logprobs=5)
        except openai.BadRequestError:  # some servers refuse to be asked for log-probabilities
            return _ask(client, model, probe, TEXT_TOKENS)
        return reply if reply.logprobs else _ask(client, model, probe, TEXT_TOKENS)


def _ask(client: openai.OpenAI, model: str, probe: list[Any], tokens: int, **options: Any) -> _Reply:
    answer = client.chat.completions.create(
        model=model, messages=probe, temperature=0.0, max_tokens=tokens, seed=0, **options
    )
    choices = getattr(answer, "choices", None)
    if not choices:
        raise ModelError(
            f"{client.base_url} gave no answer of {model} that can be read. Check that it is an OpenAI-compatible "
            "server's address, which mostly ends in /v1."
        )
    found = choices[0].logprobs.content if choices[0].logprobs else None
    return _Reply(
        choices[0].message.content or "",
        tuple(
            {token.token: token.logprob, **{top.token: top.logprob for top in token.top_logprobs}}
            for token in found or ()
        ),
    )


def _equal(one: _Reply, other: _Reply) -> bool:
    if not one.logprobs or not other.logprobs:
        return one.text == other.text
    if len(one.logprobs) != len(other.logprobs):
        return False
    return all(
        mine.keys() == yours.keys()
        and all(math.isclose(mine[token], yours[token], rel_tol=0.0, abs_tol=TOLERANCE) for token in mine)
        for mine, yours in zip(one.logprobs, other.logprobs, strict=True)
    )
