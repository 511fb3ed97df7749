"""The configuration file: what it says becomes the configuration; every mistake is told with its line and no secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import ConfigError
from disstream.server import ServerConfig, read_config, settings
from disstream.server.config import SERVICE_LIMITS
from disstream.server.toml import read_document

FULL = """\
region = "cn-north-1"                # what signing scopes must name; omitted: any

[[projects]]
id = "0123abcd"
name = "cn-north-1"
domain = "acme"

[[users]]
name = "alice"
domain = "acme"
password = "pass-WORD-1"
projects = ["0123abcd"]
access_keys = [{ ak = "AK1", sk = "SECRET-KEY-1" }]
actions = ["dis:*:*"]

[limits]
profile = "open"
max_partitions = 7
idle_timeout_s = 30
[group]
session_timeout_s = 12
join_delay_s = 0.5
[engine]
data_dir = "kept"
durability = "relaxed"
[server]
port = 9000
token_lifetime_s = 60
[tls]
certificate = "cert.pem"
key = "key.pem"
"""
SECRETS = ("pass-WORD-1", "SECRET-KEY-1")


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def full(tmp_path: Path) -> Path:
    write(tmp_path / "cert.pem", "")
    write(tmp_path / "key.pem", "")
    return write(tmp_path / "server.toml", FULL)


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    told = str(caught.value)
    assert not any(secret in told for secret in SECRETS), told
    return told


def test_everything_is_read(full: Path) -> None:
    """Each key ends where it belongs; paths are relative to the file."""
    config = read_config(full)
    assert config.region == "cn-north-1"
    assert config.users is not None
    user = config.users.by_name["acme", "alice"]
    assert (user.password, user.projects, user.actions) == ("pass-WORD-1", ("0123abcd",), ("dis:*:*",))
    assert config.users.by_key["AK1"] == (user, user.access_keys[0])
    assert user.access_keys[0].sk == "SECRET-KEY-1"
    assert config.users.projects["0123abcd"].name == "cn-north-1"
    assert (config.max_partitions, config.idle_timeout_s) == (7, 30)
    assert (config.session_timeout_s, config.join_delay_s) == (12, 0.5)
    assert (config.data_dir, config.durability) == (full.parent / "kept", "relaxed")
    assert (config.port, config.token_lifetime_s) == (9000, 60)
    assert (config.tls_certificate, config.tls_key) == (full.parent / "cert.pem", full.parent / "key.pem")


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    """Nothing said, nothing changed; nor without a file."""
    assert read_config(write(tmp_path / "empty.toml", "", 0o644)) == ServerConfig() == read_config(None)


def test_what_is_given_goes_before_the_file(full: Path) -> None:
    """Options beat the file; a limit the file names beats any profile; a profile beats the defaults."""
    config = read_config(full, profile="service", given={"port": 1, "data_dir": None})
    assert (config.port, config.data_dir, config.max_partitions) == (1, None, 7)
    assert config.max_fetch_bytes == SERVICE_LIMITS["max_fetch_bytes"]
    assert read_config(None, profile="service").max_common_partitions == 50
    assert read_config(full, profile="open").max_fetch_bytes == ServerConfig().max_fetch_bytes


def test_limits_of_the_service(tmp_path: Path) -> None:
    """The profile sets them all; each can be set by its name, and lifted if the server can do without."""
    assert read_config(None, profile="service") == ServerConfig(**SERVICE_LIMITS)  # type: ignore[arg-type]
    text = """\
[limits]
profile = "service"
common_in_bytes_per_s = "none"
common_in_records_per_s = 5
scaling_pause_s = "none"
max_apps = 3
max_failures_per_minute = 30
"""
    config = read_config(write(tmp_path / "limits.toml", text))
    assert (config.common_in_bytes_per_s, config.common_in_records_per_s) == (None, 5)
    assert (config.scaling_pause_s, config.max_apps, config.max_failures_per_minute) == (None, 3, 30)
    assert config.max_scalings_per_hour == SERVICE_LIMITS["max_scalings_per_hour"]
    assert read_config(write(tmp_path / "lifted.toml", text), profile="open").common_in_records_per_s == 5


@pytest.mark.parametrize("name", [name for name, kind in settings.LIMITS.items() if kind not in (int, float)])
def test_limits_are_more_than_nothing(name: str) -> None:
    """A limit of nothing would shut the server; the message names it."""
    for value in (0, -1):
        with pytest.raises(ConfigError, match=f"{name} is {value}: give more than 0"):
            ServerConfig(**{name: value})  # type: ignore[arg-type]
    assert getattr(ServerConfig(**{name: 1}), name) == 1  # type: ignore[arg-type]
    assert getattr(ServerConfig(), name) is None


def test_a_limit_that_could_not_be_counted() -> None:
    """A stream remembers so many scalings; a limit above that would let any number pass."""
    assert ServerConfig(max_scalings_per_hour=50).max_scalings_per_hour == 50
    with pytest.raises(ConfigError, match="max_scalings_per_hour is 51: give at most 50"):
        ServerConfig(max_scalings_per_hour=51)


@pytest.mark.parametrize(
    ("wrong", "right", "line", "told"),
    [
        ("regoin", "region", 1, "unknown key 'regoin' in the file; known: region, projects, users, limits"),
        ('namme = "cn', 'name = "cn', 5, "unknown key 'namme' in [projects]; known: id, name, domain"),
        ("pasword", "password", 11, "unknown key 'pasword' in [users]; known: name, domain"),
        ('key = "SECRET', 'sk = "SECRET', 13, "unknown key 'key' in [users.access_keys]; known: ak, sk"),
        (
            "max_partition = 7",
            "max_partitions = 7",
            18,
            "in [limits]; is 'max_partitions' meant?",
        ),
        ("qqqqqqqq = 1", "max_partitions = 7", 18, "unknown key 'qqqqqqqq' in [limits]; known: profile"),
        (
            "join_delay_s = 1",
            "max_partitions = 7",
            18,
            "in [limits]; it belongs into [group]",
        ),
        ("[engines]", "[engine]", 23, "unknown key 'engines' in the file"),
        ("timeout = 12", "session_timeout_s = 12", 21, "unknown key 'timeout' in [group]"),
        ("data_dir = 5", 'data_dir = "kept"', 24, "data_dir: expected"),
        ("max_partitions = 7.5", "max_partitions = 7", 18, "max_partitions: expected"),
        ("max_partitions = true", "max_partitions = 7", 18, "max_partitions: expected"),
        ("max_partitions = 0", "max_partitions = 7", 18, "max_partitions is 0"),
        ('max_partitions = "none"', "max_partitions = 7", 18, "max_partitions: expected"),
        ("max_streams = 0", "max_partitions = 7", 18, "max_streams is 0"),
        ("max_tags = 0", "max_partitions = 7", 18, "max_tags is 0"),
        ("max_apps = 2.5", "max_partitions = 7", 18, "max_apps: expected"),
        ('max_apps = "3"', "max_partitions = 7", 18, "max_apps is '3': give a number, or \"none\" for no limit"),
        ("common_in_bytes_per_s = -1", "max_partitions = 7", 18, "common_in_bytes_per_s is -1"),
        ("scaling_pause_s = inf", "max_partitions = 7", 18, "scaling_pause_s is inf: give at most"),
        ('scaling_pause_s = "never"', "max_partitions = 7", 18, "scaling_pause_s is 'never': give a number"),
        ('idle_timeout_s = "30"', "idle_timeout_s = 30", 19, "idle_timeout_s: expected"),
        ('profile = "closed"', 'profile = "open"', 17, "profile: give one of 'open', 'service'"),
        ('durability = "maybe"', 'durability = "relaxed"', 25, "durability is 'maybe'"),
        ("port = 70000", "port = 9000", 27, "port is 70000"),
        ("projects = [5]", 'projects = ["0123abcd"]', 12, "expected"),
        ("# no id", 'id = "0123abcd"', 3, "id is missing"),
        ('id = "a b"', 'id = "0123abcd"', 3, "'a b' cannot be used"),
        ('projects = ["other"]', 'projects = ["0123abcd"]', 8, "acme.alice is in project 'other', which is not"),
        ('domain = "b"\npassword', 'domain = "acme"\npassword', 8, "which is of domain acme"),
        ('name = "al/ice"', 'name = "alice"', 8, "user name 'al/ice' cannot be used"),
        ('name = "*"', 'name = "alice"', 8, "user name '*' cannot be used"),
        ('domain = "a.b"\npassword', 'domain = "acme"\npassword', 8, "domain 'a.b' cannot be used"),
        ('actions = ["dis:all"]', 'actions = ["dis:*:*"]', 8, "action 'dis:all' is not of the form"),
        ('sk = "SECRET-KEY-1 "', 'sk = "SECRET-KEY-1"', 8, "the secret key of access key AK1 must be printable"),
        ('ak = "SECRET-KEY-1/"', 'ak = "AK1"', 8, "an access key (ak) must be"),
        ('password = ""', 'password = "pass-WORD-1"', 8, "empty password"),
        ('password_file = "x"\npassword', "password", 8, "both password and password_file"),
        ('certificate = "no.pem"', 'certificate = "cert.pem"', None, ""),
        ('key = "no.pem"', 'key = "key.pem"', 31, "no.pem cannot be read"),
        ('certificate = "~nobody-here/c"', 'certificate = "cert.pem"', 29, "home directory that is not known"),
        ('data_dir = "a\\u0000b"', 'data_dir = "kept"', 24, "not a path"),
        ('password_file = "~nobody-here/p"', 'password = "pass-WORD-1"', 8, "home directory that is not known"),
        ("port = " + "9" * 5_000, "port = 9000", 1, "not TOML: a number has too many digits"),
        ("idle_timeout_s = inf", "idle_timeout_s = 30", 19, "idle_timeout_s is inf: give at most"),
        ("join_delay_s = inf", "join_delay_s = 0.5", 22, "join_delay_s is inf: give 0 or more, at most"),
        ("session_timeout_s = 1e30", "session_timeout_s = 12", 21, "session_timeout_s is 1e+30: give at most"),
        ("[tls", "[tls]", 29, "not TOML"),
        ('region = "a"\n"region" = "b"', 'region = "cn-north-1"', None, "not TOML: "),
    ],
)
def test_mistakes_are_told_with_their_line(full: Path, wrong: str, right: str, line: int | None, told: str) -> None:
    """FILE:LINE, the value, and what would have been right."""
    assert FULL.count(right) == 1
    write(full, FULL.replace(right, wrong))
    if line is None and not told:  # found when the server starts
        read_config(full)
        return
    message = refusal(full)
    assert message.startswith(f"{full}:{'' if line is None else f'{line}: '}")
    assert told in message


MORE = '\n[[users]]\nname = "bob"\ndomain = "acme"\nprojects = ["0123abcd"]\npassword = "x"\n'


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        (MORE + "age = 1\n", 38, "unknown key 'age' in [users]"),
        (MORE.replace("bob", "alice"), 33, "user acme.alice is given twice"),
        (
            MORE + 'access_keys = [{ak = "AK1", sk = "x"}]\n',
            33,
            "AK1 is given twice: to user acme.alice and to user acme.bob",
        ),
        (MORE + 'access_keys = [\n  {ak = "A", sk = "x"},\n  {ak = "B", sk = "x", what = 1},\n]\n', 40, "'what'"),
        (MORE + 'access_keys = [{ak="A",sk="x"},{ak="B",sk="x"},{ak="C",sk="x"}]\n', 33, "3 access keys, more than 2"),
        (MORE.replace('password = "x"\n', ""), 33, "neither a password nor an access key"),
        (MORE.replace('["0123abcd"]', "[]"), 33, "no project"),
        ('[[projects]]\nid = "0123abcd"\nname = "b"\ndomain = "acme"\n', 32, "project 0123abcd is given twice"),
        ('[[projects]]\nid = "b"\nname = "cn-north-1"\ndomain = "acme"\n', 32, "0123abcd and b of domain acme"),
    ],
)
def test_mistakes_in_repeated_tables(full: Path, text: str, line: int, told: str) -> None:
    """The second table of a name is told from the first, and contradictions name both sides."""
    write(full, FULL + text)
    message = refusal(full)
    assert told in message
    assert message.startswith(f"{full}:{line}: ")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_files_of_secrets_are_the_owners_alone(full: Path, mode: int) -> None:
    """What others may read or change is refused with the command that mends it; so are password files and keys."""
    full.chmod(mode)
    assert f"chmod 600 {full}" in refusal(full)
    full.chmod(0o600)
    (full.parent / "key.pem").chmod(mode)
    assert f"chmod 600 {full.parent / 'key.pem'}" in refusal(full)
    (full.parent / "key.pem").chmod(0o600)
    write(full, FULL.replace('password = "pass-WORD-1"', 'password_file = "pw"'))
    write(full.parent / "pw", "pass-WORD-1\n", mode)
    assert f"chmod 600 {full.parent / 'pw'}" in refusal(full)


def test_a_file_without_secrets_may_be_read_by_all(tmp_path: Path) -> None:
    """Permissions matter for what is secret: with password files only, those."""
    users = '[[users]]\nname = "u"\ndomain = "d"\npassword_file = "pw"\nprojects = ["p"]\n'
    path = write(tmp_path / "c.toml", f'[[projects]]\nid = "p"\nname = "p"\ndomain = "d"\n{users}', 0o644)
    write(tmp_path / "pw", "pass-WORD-1\n")
    config = read_config(path)
    assert config.users is not None
    assert config.users.by_name["d", "u"].password == "pass-WORD-1"
    path.chmod(0o664)
    assert "others may change it" in refusal(path)


@pytest.mark.parametrize("content", ["", "\n", "a\nb\n"])
def test_a_password_file_holds_one_line(full: Path, content: str) -> None:
    """An empty password, or a file that is something else, is refused."""
    write(full, FULL.replace('password = "pass-WORD-1"', 'password_file = "pw"'))
    write(full.parent / "pw", content)
    assert "must hold one line" in refusal(full)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a directory, bytes that are no text and a huge file are told by name."""
    for path, told in (
        (tmp_path / "no.toml", "No such file"),
        (tmp_path, "directory"),
        (tmp_path / "bytes", "not UTF-8"),
        (tmp_path / "huge", "more than"),
        (tmp_path / "deep", "nested too deeply"),
    ):
        (tmp_path / "bytes").write_bytes(b"\xff")
        (tmp_path / "huge").write_text("#" * 2_000_000)
        (tmp_path / "deep").write_text("a = " + "[" * 100_000)
        message = refusal(path)
        assert told in message
        assert str(path) in message


def test_projects_without_users_are_a_mistake(tmp_path: Path) -> None:
    """They would protect nothing."""
    path = write(tmp_path / "c.toml", '[[projects]]\nid = "p"\nname = "p"\ndomain = "d"\n')
    assert "without [[users]]" in refusal(path)


def test_memory_and_data_dir_exclude_each_other(tmp_path: Path) -> None:
    """memory = true keeps nothing; with a directory it is a mistake."""
    assert read_config(write(tmp_path / "c.toml", "[engine]\nmemory = true\n")).data_dir is None
    assert "give one" in refusal(write(tmp_path / "d.toml", '[engine]\nmemory = true\ndata_dir = "x"\n'))


def test_nothing_shows_a_secret(full: Path) -> None:
    """Neither repr nor str of anything made from the file holds a password or a key."""
    config = read_config(full)
    assert config.users is not None
    user = config.users.by_name["acme", "alice"]
    for shown in (config, config.users, user, *user.access_keys, config.users.by_name, config.users.by_key):
        for text in (repr(shown), str(shown)):
            assert not any(secret in text for secret in SECRETS), text
    reader = settings._Reader(full)
    for shown in (reader._document, reader._file, reader._file.users, reader._file.users[0].access_keys):
        assert not any(secret in repr(shown) for secret in SECRETS)


def test_what_was_given_is_not_blamed_on_the_file(full: Path) -> None:
    """A wrong option is told as such, whatever the file says of that setting."""
    for wrong in ({"port": -1}, {"host": "x"}):
        with pytest.raises(ConfigError) as caught:
            read_config(full, given=wrong)
        assert str(caught.value).startswith(f"{next(iter(wrong))} is")


def test_a_host_others_can_reach_takes_users(full: Path) -> None:
    """With users any address will do; without, only loopback, or all the same if that is said aloud."""
    for host in ("0.0.0.0", "::", "192.168.0.1"):
        assert read_config(full, given={"host": host}).host == host
        assert ServerConfig(host=host, insecure_bind=True).host == host
        with pytest.raises(ConfigError, match="insecure-bind"):
            ServerConfig(host=host)


HARD = '''\
a = """
b = 1
[c]
\\""" d = 2"""  # e = 3
"f.g" = 'h = "'
i.j = [ 1, # ]
  { k = "}", l = [2,
 3] },
]
m = 1979-05-27 07:32:00
[n."o p"]
q = 1.5
[[r]]
[r.s]
[[r.t]]
u = {}
[[r]]
[[r.t]]
[[r.t]]
v = true
'''


def test_lines_are_those_of_the_keys() -> None:
    """Strings of all kinds, comments, inline tables, arrays over lines, sub-tables of repeated tables."""
    document = read_document(HARD)
    assert document.lines == {
        ("a",): 1,
        ("f.g",): 5,
        ("i",): 6,
        ("i", "j"): 6,
        ("i", "j", 0): 6,
        ("i", "j", 1): 7,
        ("i", "j", 1, "k"): 7,
        ("i", "j", 1, "l"): 7,
        ("i", "j", 1, "l", 0): 7,
        ("i", "j", 1, "l", 1): 8,
        ("m",): 10,
        ("n",): 11,
        ("n", "o p"): 11,
        ("n", "o p", "q"): 12,
        ("r",): 13,
        ("r", 0): 13,
        ("r", 0, "s"): 14,
        ("r", 0, "t"): 15,
        ("r", 0, "t", 0): 15,
        ("r", 0, "t", 0, "u"): 16,
        ("r", 1): 17,
        ("r", 1, "t"): 18,
        ("r", 1, "t", 0): 18,
        ("r", 1, "t", 1): 19,
        ("r", 1, "t", 1, "v"): 20,
    }
    assert document.line(("r", 1, "t", 1, "missing")) == 19
    assert document.line(("nowhere",)) == 1


values = st.recursive(
    st.sampled_from(["1", "true", "'#'", '"[\\"="', "'''\n'''", '"""a"\n""""', "1.5e3", "07:32:00"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda v: f"[{', '.join(v)}]")
        | st.lists(inner, max_size=3).map(lambda v: "{" + ", ".join(f"k{i} = {x}" for i, x in enumerate(v)) + "}")
    ),
    max_leaves=5,
)


@given(st.lists(values, max_size=6))
def test_a_key_is_found_behind_any_value(drawn: list[str]) -> None:
    """Whatever stands before it, each key's line is the one it was written on."""
    text, wanted = "", {}
    for index, value in enumerate(drawn):
        wanted[f"key{index}"] = text.count("\n") + 1
        text += f"key{index} = {value}\n"
    document = read_document(text)
    assert {place[0]: line for place, line in document.lines.items() if len(place) == 1} == wanted


def test_the_owner_is_checked_on_the_file_that_was_read(full: Path) -> None:
    """A link does not hide that its target is open to others."""
    link = full.parent / "link.toml"
    os.symlink(full, link)
    full.chmod(0o644)
    assert f"chmod 600 {link}" in refusal(link)


def test_the_engine_by_name(tmp_path: Path) -> None:
    """How often the disk is synchronised and what is kept for deletions stand in [engine], and nowhere else."""
    text = '[engine]\ndurability = "relaxed"\nsync_interval_s = 0.25\nballast_bytes = 0\nmap_size_bytes = 1048576\n'
    config = read_config(write(tmp_path / "a.toml", text))
    assert (config.durability, config.sync_interval_s, config.ballast_bytes) == ("relaxed", 0.25, 0)
    assert config.map_size_bytes == 1_048_576
    for name in ("sync_interval_s", "ballast_bytes", "map_size_bytes"):
        assert f"{name} is -1" in refusal(write(tmp_path / "b.toml", f"[engine]\n{name} = -1\n"))
        assert name in refusal(write(tmp_path / "c.toml", f"[limits]\n{name} = 1\n"))
