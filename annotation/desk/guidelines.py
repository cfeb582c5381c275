"""The guidelines as HTML: Markdown that can neither run anything nor fetch anything.

The one surprising fact: pictures are not shown, only their description. A picture from elsewhere would tell that place
who reads the guidelines.
"""

from markdown_it import MarkdownIt


def render_guidelines(text: str) -> str:
    """Markdown as safe HTML: what is HTML in it is shown as text; links lead to web and mail addresses only."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return str(markdown.render(text))
