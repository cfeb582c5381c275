"""Which family a model belongs to, guessed from its name.

    family("gpt-4o-2024-11-20")              "gpt"
    family("Qwen/Qwen2.5-VL-7B-Instruct")    "qwen"

A judge of the teacher's own family shares its faults and likes its style, so a verdict of it is worth less. The one
surprising fact: a name is all that there is to go by, and a server may call its models anything.
"""

import re
from typing import Final

# Names under which models of one family go; the first one is the family's.
_ALIASES: Final = (
    ("gpt", "chatgpt", "openai"),
    ("gemini", "gemma", "paligemma"),
    ("claude",),
    ("qwen", "qwq", "qvq"),
    ("mistral", "mixtral", "pixtral", "ministral", "magistral"),
    ("internvl", "facellm"),  # FaceLLM is a tuned InternVL3
    ("llama",),
    ("deepseek",),
)
_FAMILY: Final = {name: names[0] for names in _ALIASES for name in names}
_REASONING: Final = re.compile(r"o\d")  # OpenAI's o1, o3, o4


def family(model: str) -> str:
    """The family that a model's name tells; where none is known, the name's first word stands for it.

    Args:
        model: such as `gpt-4o`, `o3`, or `Qwen/Qwen2.5-VL-7B-Instruct`: what stands before the last slash is left out.
    """
    name = model.rstrip("/").rsplit("/", 1)[-1].lower()
    if _REASONING.match(name):
        return "gpt"
    words = re.findall(r"[a-z]+", name)
    return next((_FAMILY[word] for word in words if word in _FAMILY), words[0] if words else name)
