"""Adapters that leave and come back: merged into their base, extracted from a checkpoint, pushed with a card."""
