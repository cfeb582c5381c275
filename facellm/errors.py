"""The errors that a person can do something about.

Every message says what was found, what was expected and what to do. Tabs turn these into `gr.Error`, commands
print them on one line and exit with 1; anything else is a bug and keeps its traceback.
"""


class FaceLLMError(Exception):
    """Something the user can put right; `str(error)` is the sentence to show."""


class ConfigError(FaceLLMError):
    """A setting or a run's configuration is not usable."""


class DataError(FaceLLMError):
    """A file, a row or an answer is not usable."""


class UnavailableError(DataError):
    """The database cannot be used at the moment; the same may succeed later."""


class ImageError(DataError):
    """An image cannot be opened, or is larger than the limits."""


class ModelError(FaceLLMError):
    """A checkpoint or an adapter cannot be loaded or used."""


class BusyError(FaceLLMError):
    """The request came while its place is taken, such as a second training run on one device."""


class StaleError(FaceLLMError):
    """The thing that was to be changed has been changed by somebody else meanwhile."""

    pair_id: int | None = None  # of several that were to be changed together: which it is about


class AccessError(FaceLLMError):
    """Whoever asks may not do this."""
