"""Automatic checks of answers: what is found by their wording and the labels, and kept as flags."""
