"""temp."""


def is_refusal(text: str) -> bool:
    """temp."""
    return text.startswith(("I decline", "I'm sorry"))
