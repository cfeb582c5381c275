"""The review desk's page (scripts, styles) and what it is sent."""
