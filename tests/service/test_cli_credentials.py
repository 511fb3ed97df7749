"""Every command that talks to a service takes credentials, and no secret is ever an option's value."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import click.testing
import pytest
from anyio.from_thread import start_blocking_portal

from disstream.cli import main
from disstream.server import Server, ServerConfig
from disstream.server.users import Project, User, UserKey, Users

SECRET = "hush-hush"
USERS = Users(
    [Project(id="demo", name="cn-north-1", domain="acme")],
    [
        User(
            name="alice",
            domain="acme",
            projects=("demo",),
            password=SECRET,
            access_keys=(UserKey(ak="AK1", sk=SECRET), UserKey(ak="AK2", sk=SECRET, security_token="temporary")),
        )
    ],
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server with users, in a thread of its own."""
    server = Server(ServerConfig(data_dir=None, port=0, users=USERS, region="cn-north-1"))
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(server):
        yield server.url


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("DISSTREAM_", "CLOUD_SDK_")):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A file that holds the secret, as an editor leaves it, for its owner only."""
    path = tmp_path / "secret file"
    path.write_text(f"{SECRET}\nsecond line\n")
    path.chmod(0o600)
    return str(path)


def invoke(url: str, *arguments: str, stdin: str = "", **variables: str) -> click.testing.Result:
    """`stream list` with these options. No output may hold the secret."""
    runner = click.testing.CliRunner()
    result = runner.invoke(main, ["stream", "list", "--endpoint", url, *arguments], input=stdin, env=variables)
    assert "hush" not in result.output
    return result


@pytest.mark.parametrize(
    "arguments",
    [
        ("--ak", "AK1", "--sk-file", "FILE"),
        ("--ak", "AK1", "--sk-file", "FILE", "--region", "cn-north-1"),
        ("--ak", "AK1", "--sk-file", "FILE", "--scheme", "B", "--region", "cn-north-1"),
        ("--ak", "AK1", "--sk-file", "FILE", "--scheme", "C", "--region", "cn-north-1"),
        ("--ak", "AK1", "--sk-file", "FILE", "--scheme", "C3", "--region", "cn-north-1"),
        ("--user", "alice", "--domain", "acme", "--password-file", "FILE"),
        ("--user", "alice", "--domain", "acme", "--password-file", "FILE", "--iam-endpoint", "URL"),
        ("--ak", "AK1", "--sk-file", "-"),
        ("--user", "alice", "--domain", "acme", "--password-file", "-"),
    ],
)
def test_they_let_in(url: str, file: str, arguments: tuple[str, ...]) -> None:
    """Access keys with each scheme, and passwords; the secret from a file or from standard input."""
    filled = [{"FILE": file, "URL": url}.get(argument, argument) for argument in arguments]
    result = invoke(url, *filled, stdin=f"{SECRET}\r\nmore\n")
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        ({"DISSTREAM_AK": "AK1", "DISSTREAM_SK": SECRET}, ()),
        ({"DISSTREAM_AK": "AK1", "DISSTREAM_SK": SECRET}, ("--scheme", "B", "--region", "cn-north-1")),
        ({"CLOUD_SDK_AK": "AK1", "CLOUD_SDK_SK": SECRET}, ()),
        ({"DISSTREAM_SK": SECRET}, ("--ak", "AK1")),
        ({"DISSTREAM_SK": SECRET, "DISSTREAM_SECURITY_TOKEN": "temporary"}, ("--ak", "AK2")),
    ],
)
def test_the_environment(url: str, variables: dict[str, str], arguments: tuple[str, ...]) -> None:
    """The variables of the library count, and --ak may take its secret from there."""
    result = invoke(url, *arguments, **variables)
    assert (result.exit_code, result.output) == (0, "")


def test_what_the_service_refuses(url: str, file: str, tmp_path: Path) -> None:
    """One line with the code and exit code 1."""
    token = tmp_path / "token"
    token.write_text("made-up")
    token.chmod(0o400)
    for arguments, code in (
        ((), "DIS.4101"),
        (("--ak", "AK9", "--sk-file", file), "DIS.4107"),
        (("--ak", "AK1", "--sk-file", str(token)), "DIS.4112"),
        (("--token-file", str(token)), "DIS.4114"),
        (("--user", "bob", "--domain", "acme", "--password-file", file), "IAM issues no token to 'bob' of 'acme'"),
    ):
        result = invoke(url, *arguments)
        assert result.exit_code == 1
        assert code in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--ak", "AK1", "--token-file", "FILE"), "exclude one another"),
        (("--ak", "AK1", "--user", "alice"), "exclude one another"),
        (("--sk-file", "FILE"), "--sk-file needs --ak"),
        (("--user", "alice", "--password-file", "FILE"), "--user needs --domain"),
        (("--domain", "acme"), "--domain needs --user"),
        (("--password-file", "FILE"), "--password-file needs --user"),
        (("--iam-endpoint", "http://h"), "--iam-endpoint needs --user"),
        (("--scheme", "B"), "--scheme and --region say how to sign"),
        (("--token-file", "FILE", "--region", "r"), "--scheme and --region say how to sign"),
        (("--ak", "AK1", "--sk-file", "FILE", "--scheme", "B"), "give --region"),
        (("--ak", "AK1", "--sk-file", "FILE", "--scheme", "D"), "'--scheme'"),
        (("--ak", "", "--sk-file", "FILE"), "it is empty"),
        (("--ak", "A K", "--sk-file", "FILE"), "AccessKey.access_key"),
        (("--ak", "AK1"), "--sk-file is missing, and there is no terminal"),
        (("--user", "alice", "--domain", "acme"), "--password-file is missing, and there is no terminal"),
        (("--ak", "AK1", "--sk-file", "-"), "the first line of - is empty"),
        (("--user", "a", "--domain", "d", "--password-file", "FILE", "--iam-endpoint", "h"), "endpoint 'h'"),
    ],
)
def test_bad_usage(url: str, file: str, arguments: tuple[str, ...], told: str) -> None:
    """Options that do not go together, or lack something, are named; exit code 2."""
    result = invoke(url, *(file if argument == "FILE" else argument for argument in arguments))
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_file_that_others_can_read(url: str, file: str, mode: int) -> None:
    """Refused, with the command that mends it: pasted into a shell it works."""
    os.chmod(file, mode)
    result = invoke(url, "--ak", "AK1", "--sk-file", file)
    assert result.exit_code == 2
    told = " ".join(result.stderr.split())
    assert "others can read or change" in told
    subprocess.run(told.partition("run: ")[2], shell=True, check=True)
    assert invoke(url, "--ak", "AK1", "--sk-file", file).exit_code == 0


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        (b"", 2, "is empty"),
        (b"\nhush-hush\n", 2, "is empty"),
        (b"hush\xff\n", 2, "no UTF-8 text"),
        (b"hush hush\n", 2, "AccessKey.secret_key"),
        (b"hush" * 100_000, 1, "DIS.4112"),
    ],
)
def test_files_that_hold_no_secret(url: str, file: str, content: bytes, code: int, told: str) -> None:
    """Told without their content; a huge one is not read whole."""
    Path(file).write_bytes(content)
    result = invoke(url, "--ak", "AK1", "--sk-file", file)
    assert result.exit_code == code
    assert told in " ".join(result.stderr.split())


def test_a_file_that_is_missing(url: str, tmp_path: Path) -> None:
    """Named, without a traceback."""
    result = invoke(url, "--ak", "AK1", "--sk-file", str(tmp_path / "none"))
    assert result.exit_code == 1
    assert "none" in result.stderr


def test_the_rest_of_standard_input_is_the_data(url: str, file: str) -> None:
    """`produce` reads its records behind the line of the secret, and none of them is lost."""
    signed = ["--endpoint", url, "--ak", "AK1", "--sk-file"]
    runner = click.testing.CliRunner()
    assert runner.invoke(main, ["stream", "create", "piped", "--partitions", "1", *signed, file]).exit_code == 0
    subprocess.run(
        [sys.executable, "-m", "disstream", "produce", "piped", *signed, "-"],
        input=f"{SECRET}\none\ntwo\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("DISSTREAM_")},
    )
    read = runner.invoke(main, ["consume", "piped", "--no-follow", "--format", "raw", *signed, file])
    assert read.stdout.split() == ["one", "two"]


def test_no_option_takes_a_secret() -> None:
    """What connects takes the options by name of a file; none is called like the secret itself."""

    def options(command: click.Command) -> Iterator[str]:
        if isinstance(command, click.Group):
            for child in command.commands.values():
                yield from options(child)
        for parameter in command.params:
            yield from parameter.opts

    names = set(options(main))
    assert {"--ak", "--sk-file", "--token-file", "--password-file", "--user", "--domain"} <= names
    assert not names & {"--sk", "--secret", "--secret-key", "--token", "--password", "--security-token"}
