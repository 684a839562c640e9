"""The commands, and which of them take a config."""

COMMANDS = (
    "analyze",
    "config",
    "data",
    "evaluate",
    "export",
    "models",
    "plan",
    "predict",
    "report",
    "sweep",
    "train",
)
WITH_CONFIG = {"analyze", "data", "plan", "sweep", "train"}
