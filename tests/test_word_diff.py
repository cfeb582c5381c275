"""Which words differ between two answers."""

from facellm.word_diff import mark_differences


def test_words_that_the_other_answer_lacks_are_marked() -> None:
    assert mark_differences("The face is round.", "The face is oval.") == "The face is <mark>round</mark>."
    assert mark_differences("A sad face", "A face") == "A <mark>sad</mark> face"
    assert mark_differences("The FACE", "the face!") == "The FACE", "case and punctuation are not words"


def test_markdown_between_words_stays_as_it_is() -> None:
    marked = mark_differences("- **Old** man\n- don't", "nothing", opening="[", closing="]")
    assert marked == "- **[Old]** [man]\n- [don't]"


def test_empty_answers() -> None:
    assert mark_differences("", "a") == ""
    assert mark_differences("a", "") == "<mark>a</mark>"
