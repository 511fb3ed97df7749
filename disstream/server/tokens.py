"""Tokens: what a user gets for a password, good for one project and a while. Pure.

A token says who it is for, and is signed with a secret that this server draws when it starts and tells nobody:

    base64url(JSON [domain, user, project, expires_ms]) "." base64url(HMAC-SHA256(secret, what stands before the dot))

So tokens cost no memory, however many are asked for, and a user taken out of the configuration is out with the restart
that takes. The price: all tokens end when the server does, and clients ask for new ones, as they must every day anyway.
A secret kept on disk would spare them that, but whoever could read it could be anybody.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import NamedTuple

import msgspec

MAX_TOKEN_CHARS = 2048


class Token(NamedTuple):
    domain: str
    user: str
    project: str
    expires_ms: int


_decoder = msgspec.json.Decoder(Token)


class Tokens:
    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def issue(self, token: Token) -> str:
        payload = base64.urlsafe_b64encode(msgspec.json.encode(token))
        return b".".join((payload, self._mac(payload))).decode()

    def read(self, text: str) -> Token | None:
        """None for what this server never issued. Whether it has expired is the caller's to judge."""
        try:
            payload, _, mac = text[:MAX_TOKEN_CHARS].encode("ascii").partition(b".")
        except UnicodeEncodeError:
            return None
        if not hmac.compare_digest(mac, self._mac(payload)):
            return None
        return _decoder.decode(base64.urlsafe_b64decode(payload))

    def _mac(self, payload: bytes) -> bytes:
        return base64.urlsafe_b64encode(hmac.digest(self._secret, payload, "sha256"))


class Guesses:
    """Bounds how fast one user's password can be guessed: a burst of wrong ones, then one every few seconds.

    While the bound is hit the right password is refused as well, or it would be no bound; tokens already issued go on.
    All names share a fixed number of counters, whether somebody has them or not: so asking for many costs no memory,
    and no name is told from another by who fills its counter. That two share one is rare enough.
    """

    BURST = 10
    SECONDS_EACH = 6.0
    _COUNTERS = 16_384

    def __init__(self) -> None:
        self._levels: dict[int, tuple[float, float]] = {}

    def admit(self, domain: str, user: str, now: float) -> bool:
        return self._level(self._counter(domain, user), now) < self.BURST

    def failed(self, domain: str, user: str, now: float) -> None:
        counter = self._counter(domain, user)
        self._levels[counter] = (self._level(counter, now) + 1, now)

    def _level(self, counter: int, now: float) -> float:
        level, since = self._levels.get(counter, (0.0, now))
        return max(0.0, level - (now - since) / self.SECONDS_EACH)

    def _counter(self, *names: str) -> int:
        return hash(names) % self._COUNTERS  # salted by the interpreter: nobody outside can pick names that meet


def same(given: str, wanted: str) -> bool:
    """In a time that tells neither where they differ nor how long they are."""
    return hmac.compare_digest(
        *(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (given, wanted))
    )
