"""Proves that what a client cannot work with is refused at once, naming the value and the remedy."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from disstream.client.config import ClientConfig, default_user_agent
from disstream.client.endpoint import check_endpoint
from disstream.errors import ConfigError


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("https://dis.cn-north-1.myhuaweicloud.com", "https://dis.cn-north-1.myhuaweicloud.com"),
        ("HTTPS://Host", "https://Host"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_endpoints(given_: str, kept: str) -> None:
    """Scheme, host and port are kept; a lone slash behind them is no path."""
    assert check_endpoint(given_) == kept


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("127.0.0.1:8080", "needs http:// or https://"),
        ("localhost", "needs http:// or https://"),
        ("ftp://host", "needs http:// or https://"),
        ("http://", "needs http:// or https://"),
        ("", "needs http:// or https://"),
        ("http://host:99999", "not a URL"),
        ("http://host:0", "port 0"),
        ("http://ho st", "blanks"),
        ("http://[::1", "not a URL"),
        ("http://host/gateway/dis", "a prefix cannot be honoured"),
        ("http://host?x=1", "a prefix cannot be honoured"),
        ("http://host#x", "a prefix cannot be honoured"),
    ],
)
def test_bad_endpoints(bad: str, told: str) -> None:
    """What is wrong with an endpoint is told together with the endpoint."""
    with pytest.raises(ConfigError, match="(?s)" + told) as caught:
        check_endpoint(bad)
    assert repr(bad) in str(caught.value)


def test_a_password_in_the_endpoint_is_not_repeated_in_the_error() -> None:
    """The message about credentials in an endpoint does not print them: it may end in a log."""
    with pytest.raises(ConfigError) as caught:
        check_endpoint("http://user:hunter2@host")
    assert "hunter2" not in str(caught.value)


@given(st.text())
@example("http://\ud800")
@example("//host")
def test_no_text_breaks_the_endpoint_check(text: str) -> None:
    """Any text is either taken or refused with ConfigError, and what is taken is stable."""
    try:
        kept = check_endpoint(text)
    except ConfigError:
        return
    assert check_endpoint(kept) == kept


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("request_timeout_s", 0),
        ("request_timeout_s", math.inf),
        ("connect_timeout_s", -1.0),
        ("connect_timeout_s", math.nan),
        ("keepalive_s", 0),
        ("close_timeout_s", -0.1),
        ("retry_budget_s", math.nan),
        ("retry_base_s", 0),
        ("max_connections", 0),
        ("max_response_bytes", 0),
        ("attempts", 0),
        ("retry_max_s", 0.01),
        ("user_agent", "two\r\nlines"),
        ("user_agent", "ümlaut"),
    ],
)
def test_bad_settings(field: str, value: Any) -> None:
    """A setting that cannot work is refused; the message names the field and the value."""
    with pytest.raises(ConfigError, match=f"ClientConfig.{field}=") as caught:
        ClientConfig(**{field: value})
    assert repr(value) in str(caught.value)


def test_the_user_agent_names_library_and_python() -> None:
    """An operator of the service sees which client and which Python asked."""
    library, python = default_user_agent().split(" ")
    assert library.startswith("disstream/")
    assert python.startswith("python/3.")
