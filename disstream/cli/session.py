"""What every command that talks to a service shares: where it connects, as whom, and the library's warnings.

A secret is never an option's value: whoever lists the processes would read it. It comes from the environment, from a
file that nobody else can read, from the first line of standard input, or from a prompt.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import shlex
import stat
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, get_args

import click

from ..client import AccessKey, ClientConfig, Credentials, Password, Token
from ..client.config import Body
from ..door import DisClient, connect, environment_credentials
from ..wire.compression import COMPRESSIONS, Compression
from .running import say

DEFAULT_ENDPOINT = "http://127.0.0.1:8080"
DEFAULT_PROJECT = "demo"


MAX_SECRET_BYTES = 65_536


class Target(NamedTuple):
    """The service and the project a command works on, and as whom."""

    endpoint: str
    project: str
    credentials: Credentials | None

    def connect(
        self, patience_s: float | None = None, *, body: Body = "auto", compression: Compression | None = None
    ) -> DisClient:
        """`patience_s`: a call is given up after about so long, with all its attempts. None: the client's defaults."""
        config = ClientConfig(body=body, compression=compression)
        if patience_s is not None:
            config = dataclasses.replace(
                config,
                request_timeout_s=min(patience_s, config.request_timeout_s),
                retry_budget_s=min(patience_s, config.retry_budget_s),
            )
        return connect(self.endpoint, project_id=self.project, credentials=self.credentials, config=config)


body_option = click.option(
    "--body",
    type=click.Choice(get_args(Body)),
    default="auto",
    help="How records travel. auto: written as columns where the server reads them, else as JSON. json: always. "
    "protobuf: without base64, for large records and a server that reads no columns.",
)
compression_option = click.option(
    "--compression", type=click.Choice(COMPRESSIONS), help="Compress what is written.  [default: it travels as it is]"
)


def given(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """An option's value unless it is empty, as of `--project "$UNSET"`: nothing may be guessed instead."""
    if value == "":
        raise click.BadParameter("it is empty: give a value, or leave the option out")
    return value


def connects(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `Target`; its function gets a `Target` as its first argument."""

    @functools.wraps(command)
    def with_target(endpoint: str, project: str, **arguments: Any) -> Any:
        identity = {name: arguments.pop(name) for name in _IDENTITY}
        with library_messages():
            return command(Target(endpoint, project, _credentials(**identity)), **arguments)

    decorated: Callable[..., Any] = with_target
    for option in reversed(_OPTIONS):  # what decorates last stands first
        decorated = option(decorated)
    return decorated


_OPTIONS: tuple[Callable[..., Any], ...] = (
    click.option(
        "--endpoint",
        envvar="DISSTREAM_ENDPOINT",
        show_envvar=True,
        default=DEFAULT_ENDPOINT,
        callback=given,
        metavar="URL",
        help="Where the service answers.",
    ),
    click.option(
        "--project",
        envvar="DISSTREAM_PROJECT_ID",
        show_envvar=True,
        default=DEFAULT_PROJECT,
        callback=given,
        metavar="ID",
        help="The project whose streams are meant.",
    ),
    click.option(
        "--ak",
        callback=given,
        metavar="AK",
        help="Sign with this access key. Its secret: --sk-file, $DISSTREAM_SK or a prompt. Without --ak, --token-file "
        "and --user: $DISSTREAM_AK and $DISSTREAM_SK, $CLOUD_SDK_AK and $CLOUD_SDK_SK, or $DISSTREAM_TOKEN, if set.",
    ),
    click.option("--sk-file", callback=given, metavar="FILE", help="Holds the secret key. (-: standard input.)"),
    click.option("--scheme", type=click.Choice(["A", "B", "C", "C3"]), help="How to sign; all but A need --region."),
    click.option("--region", callback=given, metavar="NAME", help="The region a signature is for, as in cn-north-1."),
    click.option("--token-file", callback=given, metavar="FILE", help="Holds a token to be sent. (-: standard input.)"),
    click.option("--user", callback=given, metavar="NAME", help="Get tokens for this user of IAM."),
    click.option("--domain", callback=given, metavar="NAME", help="The account of --user."),
    click.option(
        "--password-file",
        callback=given,
        metavar="FILE",
        help="Holds the password of --user; without it there is a prompt. (-: standard input.)",
    ),
    click.option("--iam-endpoint", callback=given, metavar="URL", help="Where IAM answers; default: as --endpoint."),
)
_IDENTITY = ("ak", "sk_file", "scheme", "region", "token_file", "user", "domain", "password_file", "iam_endpoint")


def _credentials(
    *,
    ak: str | None,
    sk_file: str | None,
    scheme: str | None,
    region: str | None,
    token_file: str | None,
    user: str | None,
    domain: str | None,
    password_file: str | None,
    iam_endpoint: str | None,
) -> Credentials | None:
    """What the options say, else what the environment says. Raises click.UsageError, ConfigError."""
    if sum(option is not None for option in (ak, token_file, user)) > 1:
        raise click.UsageError("--ak, --token-file and --user exclude one another: give one of them")
    for name, value, needs, there in (
        ("--sk-file", sk_file, "--ak", ak),
        ("--domain", domain, "--user", user),
        ("--password-file", password_file, "--user", user),
        ("--iam-endpoint", iam_endpoint, "--user", user),
        ("--user", user, "--domain", domain),
    ):
        if value is not None and there is None:
            raise click.UsageError(f"{name} needs {needs}")
    found: Credentials | None
    if ak is not None:
        secret = None if sk_file is not None else os.environ.get("DISSTREAM_SK")
        # A token from there belongs to the secret from there.
        security_token = os.environ.get("DISSTREAM_SECURITY_TOKEN") if secret else None
        secret = secret or _secret("--sk-file", sk_file, f"Secret key of {ak}")
        if scheme not in (None, "A") and region is None:
            raise click.UsageError(f"--scheme {scheme} signs for a region: give --region, like cn-north-1")
        return AccessKey(ak, secret, security_token=security_token or None, scheme=scheme or "A", region=region)
    if token_file is not None:
        found = Token(_secret("--token-file", token_file, "Token"))
    elif user is not None and domain is not None:
        password = _secret("--password-file", password_file, f"Password of {user}")
        found = Password(user, password, domain=domain, endpoint=iam_endpoint)
    else:
        found = environment_credentials()
    if scheme is not None or region is not None:
        if not isinstance(found, AccessKey):
            raise click.UsageError("--scheme and --region say how to sign: give --ak too")
        found = dataclasses.replace(found, scheme=scheme or "A", region=region)
    return found


def _secret(option: str, path: str | None, prompt: str) -> str:
    """The first line of a file, of standard input if `path` is `-`; None: what is typed at a prompt."""
    if path is None:
        if sys.stdin is None or not sys.stdin.isatty():
            raise click.UsageError(f"{option} is missing, and there is no terminal to ask on")
        return str(click.prompt(prompt, hide_input=True, err=True))
    if path == "-":
        if sys.stdin is None:
            raise click.UsageError(f"{option} -: standard input is closed")
        line = _first_line(sys.stdin.buffer)
    else:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
                raise click.UsageError(
                    f"{option}: others can read or change {path}; run: chmod 600 {shlex.quote(path)}"
                )
            line = _first_line(file)
    try:
        secret = line.decode()
    except UnicodeDecodeError:
        raise click.UsageError(f"{option}: {path} holds no UTF-8 text") from None  # the error would hold the secret
    if not secret:
        raise click.UsageError(f"{option}: the first line of {path} is empty")
    return secret


def _first_line(file: BinaryIO) -> bytes:
    """Without its end. Reads no byte behind it, nor through Python's buffer: the rest is for others to read."""
    read = getattr(file, "raw", file).read
    line = bytearray()
    while len(line) < MAX_SECRET_BYTES and (byte := read(1)) not in (b"", b"\n"):
        line += byte
    return bytes(line.removesuffix(b"\r"))


class _Lines(logging.Handler):
    """Messages as lines on standard error, without time, level and traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        say(" ".join(record.getMessage().split()), err=True)


@contextlib.contextmanager
def library_messages() -> Iterator[None]:
    """Show the library's warnings, and of the producer also how it recovers, while a command runs."""
    handlers = (
        (logging.getLogger("disstream"), _Lines(logging.WARNING)),
        (logging.getLogger("disstream.producer"), _Lines(logging.INFO)),
    )
    handlers[1][1].addFilter(lambda record: record.levelno < logging.WARNING)  # those reach the first handler too
    levels = [logger.level for logger, _ in handlers]
    for logger, handler in handlers:
        logger.addHandler(handler)
        logger.setLevel(handler.level)
    try:
        yield
    finally:
        for (logger, handler), level in zip(handlers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
