"""How far reviewers agree about the same pairs, beyond what chance would make them."""
