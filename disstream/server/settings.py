"""The configuration file of `disstream serve`: TOML -> ServerConfig with its Users.

    region = "cn-north-1"            # what signing scopes must name; omitted: any
    [[projects]]                     # id, name, domain
    [[users]]                        # name, domain, projects, password or password_file, access_keys, actions
    [limits]                         # profile = "open" or "service"; each limit of ServerConfig by its name, "none"
                                     # lifts one that the profile sets and the server can do without
    [group]                          # session_timeout_s, join_delay_s
    [engine]                         # data_dir (or memory = true), durability, sync_interval_s, map_size_bytes,
                                     # ballast_bytes
    [server]                         # host, port, insecure_bind, token_lifetime_s, workers
    [tls]                            # certificate, key

Paths in it are relative to the file. Every mistake is a ConfigError "FILE:LINE: ...", and none repeats a secret. A file
that holds secrets must be its owner's alone.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from ..errors import ConfigError
from .config import SERVICE_LIMITS, ServerConfig
from .toml import Document, read_document
from .toml import Path as Place
from .users import Project, User, UserKey, Users

Profile = Literal["open", "service"]

_MAX_FILE_BYTES = 1_048_576
_MANY_KEYS = 12  # too many to read through for one that was misspelt
_GROUP = ("session_timeout_s", "join_delay_s")
_ENGINE = ("sync_interval_s", "map_size_bytes", "ballast_bytes")
_SERVER = ("host", "port", "insecure_bind", "token_lifetime_s", "workers")
_KINDS: dict[object, Any] = {"int": int, "float": float, "int | None": int | str, "float | None": float | str}
LIMITS = {
    field.name: _KINDS[field.type]
    for field in dataclasses.fields(ServerConfig)
    if field.type in _KINDS and field.name not in _ENGINE + _GROUP + _SERVER
}
"""The limits by name, with what the file may say: text only for those that can be lifted, and then only "none"."""


class _Table(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The keys a table may have. What is not given stays as ServerConfig has it."""

    def __repr__(self) -> str:  # without the secrets that some hold
        return f"{type(self).__name__}(...)"


class _Project(_Table):
    id: str
    name: str
    domain: str


class _AccessKey(_Table):
    ak: str
    sk: str
    security_token: str | None = None


class _User(_Table):
    name: str
    domain: str
    projects: list[str]
    password: str | None = None
    password_file: str | None = None
    access_keys: list[_AccessKey] = []
    actions: list[str] | None = None


class _Group(_Table):
    session_timeout_s: float | None = None
    join_delay_s: float | None = None


class _Engine(_Table):
    data_dir: str | None = None
    memory: bool = False
    durability: str | None = None
    sync_interval_s: float | None = None
    map_size_bytes: int | None = None
    ballast_bytes: int | None = None


class _Server(_Table):
    host: str | None = None
    port: int | None = None
    insecure_bind: bool | None = None
    token_lifetime_s: float | None = None
    workers: int | None = None


class _Tls(_Table):
    certificate: str
    key: str | None = None


_Limits = msgspec.defstruct(
    "_Limits",
    [("profile", Profile, "open"), *((name, kind | None, None) for name, kind in LIMITS.items())],
    bases=(_Table,),
    kw_only=True,
)


class _File(_Table):
    region: str | None = None
    projects: list[_Project] = []
    users: list[_User] = []
    limits: _Limits = msgspec.field(default_factory=_Limits)  # type: ignore[valid-type]
    group: _Group = msgspec.field(default_factory=_Group)
    engine: _Engine = msgspec.field(default_factory=_Engine)
    server: _Server = msgspec.field(default_factory=_Server)
    tls: _Tls | None = None


def read_config(
    path: Path | str | None, *, profile: Profile | None = None, given: Mapping[str, Any] | None = None
) -> ServerConfig:
    """What the file says; `profile` and `given` (settings of ServerConfig by name) go before it.

    A limit the file names stands before any profile. No file: only those. Raises ConfigError.
    """
    if path is None:
        return ServerConfig(**{**(SERVICE_LIMITS if profile == "service" else {}), **(given or {})})
    return _Reader(Path(path)).config(profile, given or {})


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        text, self._mode = _read(path, "configuration")
        try:
            self._document: Document = read_document(text)
        except ConfigError as exc:
            raise ConfigError(f"{path}:{exc}") from None
        try:
            self._file = msgspec.convert(self._document.data, _File)
        except msgspec.ValidationError as exc:
            raise self._told(exc) from None

    def config(self, profile: Profile | None, given: Mapping[str, Any]) -> ServerConfig:
        file = self._file
        limits: dict[str, Any] = msgspec.structs.asdict(file.limits)
        own = limits.pop("profile")
        settings: dict[str, Any] = dict(SERVICE_LIMITS if (profile or own) == "service" else {})
        for table in (limits, msgspec.structs.asdict(file.group), msgspec.structs.asdict(file.server)):
            settings.update({name: value for name, value in table.items() if value is not None})
        settings.update(dict.fromkeys(self._lifted(limits)))
        settings["region"] = file.region
        settings["users"] = self._users()
        settings.update(self._engine())
        if file.tls is not None:
            with self._at("tls"):
                settings["tls_certificate"] = self._beside(file.tls.certificate)
                settings["tls_key"] = None if file.tls.key is None else self._beside(file.tls.key)
            with self._at("tls", "key" if file.tls.key is not None else "certificate"):
                _check_private(settings["tls_key"] or settings["tls_certificate"])
        settings.update(given)
        try:
            return ServerConfig(**settings)
        except ConfigError as exc:
            # Its messages begin with the name of the setting, which stands in the file unless it was given otherwise.
            name = str(exc).partition(" ")[0]
            place = next((p for p in self._document.lines if p and p[-1] == name.removeprefix("tls_")), None)
            if place is None or name in given:
                raise
            raise ConfigError(f"{self._path}:{self._document.line(place)}: {exc}") from None

    def _lifted(self, limits: Mapping[str, Any]) -> Iterator[str]:
        """The names of limits that the file lifts; TOML has no null to say so."""
        for name, value in limits.items():
            if isinstance(value, str):
                with self._at("limits", name):
                    if value != "none":
                        raise ConfigError(f'{name} is {value[:80]!r}: give a number, or "none" for no limit')
                yield name

    def _engine(self) -> dict[str, Any]:
        engine = self._file.engine
        settings: dict[str, Any] = {}
        if engine.memory:
            with self._at("engine", "memory"):
                if engine.data_dir is not None:
                    raise ConfigError("[engine] has both memory and data_dir: memory keeps nothing, so give one")
            settings["data_dir"] = None
        elif engine.data_dir is not None:
            with self._at("engine", "data_dir"):
                settings["data_dir"] = self._beside(engine.data_dir)
        for name in ("durability", *_ENGINE):
            if (value := getattr(engine, name)) is not None:
                settings[name] = value
        return settings

    def _users(self) -> Users | None:
        if "users" not in self._document.data:
            with self._at("projects"):
                if self._file.projects:
                    raise ConfigError("[[projects]] without [[users]]: nobody would have to sign in to any; add users")
            return None
        if self._holds_secrets():
            _refuse_readable(self._path, self._mode)
        elif self._mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ConfigError(f"{self._path} says who may sign in, and others may change it: run 'chmod go-w' first")
        users = Users()
        for index, project in enumerate(self._file.projects):
            with self._at("projects", index):
                users.add_project(Project(id=project.id, name=project.name, domain=project.domain))
        for index, user in enumerate(self._file.users):
            with self._at("users", index):
                users.add(self._user(user))
        return users

    def _holds_secrets(self) -> bool:
        return any(user.password is not None or user.access_keys for user in self._file.users)

    def _user(self, user: _User) -> User:
        password = user.password
        if user.password_file is not None:
            if password is not None:
                raise ConfigError(f"user {user.name[:80]!r} has both password and password_file: give one")
            path = self._beside(user.password_file)
            text, mode = _read(path, "password")
            _refuse_readable(path, mode)
            password = text.removesuffix("\n").removesuffix("\r")
            if not password or "\n" in password:
                raise ConfigError(f"password file {path} must hold one line, the password")
        fields: dict[str, Any] = {} if user.actions is None else {"actions": tuple(user.actions)}
        return User(
            name=user.name,
            domain=user.domain,
            projects=tuple(user.projects),
            password=password,
            access_keys=tuple(UserKey(ak=k.ak, sk=k.sk, security_token=k.security_token) for k in user.access_keys),
            **fields,
        )

    def _beside(self, path: str) -> Path:
        try:
            if "\0" in path:
                raise ConfigError(f"{path!r} is not a path: it holds a NUL")
            return self._path.parent / Path(path).expanduser()
        except RuntimeError:
            raise ConfigError(f"{path!r} begins with a home directory that is not known: write it out") from None

    @contextmanager
    def _at(self, *place: str | int) -> Iterator[None]:
        """Tell where a mistake found inside stands."""
        try:
            yield
        except ConfigError as exc:
            raise ConfigError(f"{self._path}:{self._document.line(place)}: {exc}") from None

    def _told(self, exc: msgspec.ValidationError) -> ConfigError:
        """msgspec's words with the line, and with the keys that would have been right. They hold no values."""
        told, _, where = str(exc).partition(" - at `$")
        place = (
            tuple(int(i) if i else key for key, i in re.findall(r"\.([A-Za-z0-9_-]+)|\[(\d+)\]", where))
            if where
            else ()
        )
        if found := re.fullmatch(r"Object contains unknown field `(.*)`", told, re.DOTALL):
            table = _table_at(place)
            header = f"[{'.'.join(part for part in place if isinstance(part, str))}]" if place else "the file"
            told = f"unknown key {found[1][:80]!r} in {header}; {_instead(found[1], table)}"
            place = (*place, found[1])
        elif found := re.fullmatch(r"Object missing required field `(.*)`", told):
            told = f"{found[1]} is missing"
        elif place[-1:] == ("profile",):
            told = f"profile: give one of {', '.join(map(repr, get_args(Profile)))}"
        elif place:
            told = f"{place[-1]}: {told[0].lower()}{told[1:]}"
        return ConfigError(f"{self._path}:{self._document.line(place)}: {told}")


_TABLES: dict[Place, type[msgspec.Struct]] = {
    (): _File,
    ("projects",): _Project,
    ("users",): _User,
    ("users", "access_keys"): _AccessKey,
    ("limits",): _Limits,
    ("group",): _Group,
    ("engine",): _Engine,
    ("server",): _Server,
    ("tls",): _Tls,
}


def _table_at(place: Place) -> type[msgspec.Struct]:
    """The table whose keys stand at `place`."""
    return _TABLES[tuple(part for part in place if isinstance(part, str))]


def _instead(key: str, table: type[msgspec.Struct]) -> str:
    """What may have been meant by a key that `table` does not have."""
    known = f"known: {', '.join(table.__struct_fields__)}"
    for name, other in (("limits", _Limits), ("group", _Group), ("server", _Server), ("engine", _Engine)):
        if key in other.__struct_fields__:
            return f"it belongs into [{name}]"
    if near := difflib.get_close_matches(key, table.__struct_fields__, 1):
        hint = f"is {near[0]!r} meant?"
        return hint if len(table.__struct_fields__) > _MANY_KEYS else f"{known}; {hint}"
    return known


def _read(path: Path, what: str) -> tuple[str, int]:
    """The text, and the permissions of the very file that was read."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"the {what} file {path} cannot be read: {exc.strerror}") from exc
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(f"the {what} file {path} has more than {_MAX_FILE_BYTES} bytes: is it the right one?")
    try:
        return data.decode(), status.st_mode
    except UnicodeDecodeError:
        raise ConfigError(f"the {what} file {path} is not UTF-8 text") from None


def _check_private(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    _refuse_readable(path, mode)


def _refuse_readable(path: Path, mode: int) -> None:
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{path} holds secrets, and others may read or change it: run 'chmod 600 {path}' first")
