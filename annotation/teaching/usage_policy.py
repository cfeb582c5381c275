"""What is to be known before faces are sent to OpenAI; asked once for a data directory, and stored with a name.

These are facts read in November 2026, not advice; the provider's own text decides.
"""

from urllib.parse import urlsplit

POLICY_SUBJECT = "openai usage policy 2026-11"
OPENAI_POLICY = """Before pictures of faces go to OpenAI, know this:
- Its usage policies forbid to evaluate or classify people by their biometric data, also to infer sensitive attributes
  such as race from it. Whether research on labelled data sets is meant is for you to find out, not for this program.
- Its terms also restrict training models on its output that compete with its own.
- In the EU, data that reveal racial or ethnic origin are specially protected, and inferring them from faces is
  prohibited in general; labelling and filtering data sets that were acquired lawfully is excepted.
- Images of minors can be left out: --exclude-ages 0-2,3-9,10-19.
- A refusal of the model is kept as a refusal. Nothing here tries to get around it.
A model on a server of your own, such as vLLM, sends nothing to anybody."""


def is_openai(base_url: str) -> bool:
    """Whether requests to this address go to OpenAI or to its models at Azure."""
    host = (urlsplit(base_url).hostname or "").lower()
    return any(host == name or host.endswith("." + name) for name in ("openai.com", "openai.azure.com", "azure.com"))
