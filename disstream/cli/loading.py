"""A function of the user's, by its name: MODULE:NAME, as servers of web applications take it."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import click


def load(text: str, option: str = "") -> Callable[..., Any]:
    """What `text` names, as seen from the working directory. `option`: what it was given to, for messages.

    Raises click.UsageError, also for what the module raises while it is imported.
    """
    said = f"{option} {text}" if option else text
    module_name, colon, path = text.partition(":")
    if not (module_name and colon and path):
        raise click.UsageError(f"{said}: give MODULE:NAME, like handlers:bill for bill in handlers.py")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and f"{module_name}.".startswith(f"{exc.name}."):
            raise click.UsageError(
                f"{said}: there is no module {module_name!r} in {here} or where Python looks"
            ) from exc
        raise click.UsageError(f"{said}: module {module_name!r} needs what is not there: {exc}") from exc
    except Exception as exc:  # the user's code
        last = traceback.extract_tb(exc.__traceback__)[-1]
        told = f"{type(exc).__name__}: {exc} ({last.filename}, line {last.lineno})"
        raise click.UsageError(f"{said}: module {module_name!r} cannot be imported: {told}") from exc
    for name in path.split("."):
        if not hasattr(found, name):
            raise click.UsageError(f"{said}: {module_name!r} has no {path!r}")
        found = getattr(found, name)
    if not callable(found):
        raise click.UsageError(f"{said}: that is {type(found).__name__}, and cannot be called")
    checked: Callable[..., Any] = found
    return checked
