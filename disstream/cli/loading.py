"""A function of the user's, by its name: MODULE:NAME, as servers of web applications take it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import click


def load(text: str, option: str) -> Callable[..., Any]:
    """What `text` names, looked for in the working directory first. Raises click.UsageError; what the module itself
    raises while it is imported is the user's to see."""
    module_name, colon, path = text.partition(":")
    if not module_name or not colon or not path:
        raise click.UsageError(f"{option} {text}: give MODULE:NAME, like handlers:handle for handle in handlers.py")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise  # found, and what it imports is missing
        raise click.UsageError(f"{option} {text}: there is no module {exc.name!r} in {here} nor installed") from exc
    for name in path.split("."):
        if not hasattr(found, name):
            raise click.UsageError(f"{option} {text}: {module_name} has no {path!r}")
        found = getattr(found, name)
    if not callable(found):
        raise click.UsageError(f"{option} {text}: that is {type(found).__name__}, and cannot be called")
    checked: Callable[..., Any] = found
    return checked
