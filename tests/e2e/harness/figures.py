"""The measured figures of the reliability goals, one JSON object a line."""

import json
import os


def figure(goal: str, what: str, figure: str, met: bool) -> None:
    """Appends a figure to the file that FIGURES names, if it names one."""
    if path := os.environ.get("FIGURES"):
        with open(path, "a") as file:
            file.write(json.dumps({"goal": goal, "what": what, "figure": figure, "met": met}) + "\n")
