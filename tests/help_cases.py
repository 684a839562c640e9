"""Commands that take a config."""

WITH_CONFIG = {"analyze", "data", "plan", "sweep", "train"}
