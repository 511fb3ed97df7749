"""Metrics on the wire: which queries are understood, exact bodies both ways, and what other services may say."""

from __future__ import annotations

import json

import pytest

from disstream.errors import ApiError, TransportError
from disstream.model import PARTITION_METRICS, STREAM_METRICS, DataPoint, Metric
from disstream.wire.metrics import (
    LENIENCE_S,
    PERIOD_S,
    MetricsQuery,
    decode_metrics,
    encode_partition_metrics,
    encode_stream_metrics,
    parse_metrics_query,
)

NOW = 1_606_984_500
PERIOD = {"start_time": "1606984320", "end_time": "1606984440"}
BYTES, RECORDS = "total_put_bytes_per_stream", "total_put_records_per_stream"


def parse(**query: str) -> MetricsQuery:
    return parse_metrics_query({**PERIOD, **query}, STREAM_METRICS, NOW)


@pytest.mark.parametrize("label", STREAM_METRICS)
def test_each_label_is_known(label: str) -> None:
    """Alone and in a list."""
    assert parse(label=label) == MetricsQuery([label], False, 1606984320, 1606984440)
    assert parse(label_list=label) == MetricsQuery([label], True, 1606984320, 1606984440)


def test_a_list_wins() -> None:
    """In the order of the request, each once, with blanks and gaps; the label beside it is ignored."""
    query = parse(label="nonsense", label_list=f"{RECORDS}, {BYTES},,{RECORDS},")
    assert query == MetricsQuery([RECORDS, BYTES], True, 1606984320, 1606984440)


def test_a_long_list_is_short() -> None:
    """However long the list, there are no more labels than there are."""
    assert parse(label_list=",".join(STREAM_METRICS * 1000)).labels == [*STREAM_METRICS]


def test_spellings_of_the_documents() -> None:
    """Double l: the same as the other, and told as that."""
    assert parse(label="traffic_controll_put").labels == ["traffic_control_put"]
    assert parse(label_list="traffic_controll_get,traffic_control_get").labels == ["traffic_control_get"]


@pytest.mark.parametrize("query", [{}, {"label_list": ","}, {"label": " "}, {"label": "x"}, {"label": f"{BYTES},x"}])
def test_bad_labels(query: dict[str, str]) -> None:
    """None, and unknown ones: DIS.4209, which names those there are."""
    assert code(**query) == ("DIS.4209", BYTES)


@pytest.mark.parametrize("label", PARTITION_METRICS)
def test_labels_of_the_other_kind(label: str) -> None:
    """A partition's label of a stream, and the reverse."""
    assert code(label=label)[0] == "DIS.4209"
    assert code(label_list=f"{BYTES},{label}")[0] == "DIS.4209"
    with pytest.raises(ApiError) as caught:
        parse_metrics_query({**PERIOD, "label": BYTES}, PARTITION_METRICS, NOW)
    assert caught.value.code == "DIS.4209"


@pytest.mark.parametrize(
    ("start", "end", "wanted"),
    [
        ("", "1606984440", "DIS.4203"),
        ("1606984320", "", "DIS.4203"),
        ("x", "1606984440", "DIS.4203"),
        ("1606984320", "1606984320.5", "DIS.4203"),
        ("-1", "1606984440", "DIS.4203"),
        ("1606984320", "²", "DIS.4203"),
        ("1606984320000", "1606984440000", "DIS.4203"),
        ("1606984320", "1606984319", "DIS.4203"),
        ("1606984320", "1606984320", ""),
        ("0", "1606984440", "DIS.4204"),
        (str(NOW - PERIOD_S - LENIENCE_S - 1), str(NOW - PERIOD_S), "DIS.4204"),
        (str(NOW - PERIOD_S - LENIENCE_S), str(NOW - LENIENCE_S), ""),
        (str(NOW - PERIOD_S), str(NOW + 1), "DIS.4204"),
        (str(NOW + 5), str(NOW + 5 + PERIOD_S), ""),
    ],
)
def test_periods(start: str, end: str, wanted: str) -> None:
    """Seconds, in order; at most seven days, and no older, give or take what clocks may be apart."""
    query = {key: value for key, value in (("start_time", start), ("end_time", end)) if value}
    if wanted:
        with pytest.raises(ApiError) as caught:
            parse_metrics_query({"label": BYTES, **query}, STREAM_METRICS, NOW)
        assert caught.value.code == wanted
    else:
        parse_metrics_query({"label": BYTES, **query}, STREAM_METRICS, NOW)


def test_a_period_starts_with_its_minute() -> None:
    """The minute that a period starts in is part of it."""
    assert parse(label=BYTES, start_time="1606984379", end_time="1606984379")[2:] == (1606984320, 1606984379)


def code(**query: str) -> tuple[str, str]:
    """The code of the refusal, and the label that it begins its list with."""
    with pytest.raises(ApiError) as caught:
        parse(**query)
    told = caught.value.message
    return caught.value.code, BYTES if BYTES in told else told


FIRST = Metric(label=BYTES, points=(DataPoint(1606984320, 1024), DataPoint(1606984380, 2048)))
SECOND = Metric(label=RECORDS, points=(DataPoint(1606984320, 2),))
WIRE_FIRST = {
    "dataPoints": [{"timestamp": 1606984320, "value": 1024}, {"timestamp": 1606984380, "value": 2048}],
    "label": "total_put_bytes_per_stream",
}
WIRE_SECOND = {"dataPoints": [{"timestamp": 1606984320, "value": 2}], "label": "total_put_records_per_stream"}


def test_answers_of_a_stream() -> None:
    """One label: `metrics` alone; a list: `metrics_list` alone, in the order of the request. Both ways."""
    one, several = encode_stream_metrics([FIRST], listed=False), encode_stream_metrics([FIRST, SECOND], listed=True)
    assert json.loads(one) == {"metrics": WIRE_FIRST}
    assert json.loads(several) == {"metrics_list": [WIRE_FIRST, WIRE_SECOND]}
    assert json.loads(encode_stream_metrics([SECOND], listed=True)) == {"metrics_list": [WIRE_SECOND]}
    assert decode_metrics(one) == {BYTES: FIRST}
    assert [*decode_metrics(several).items()] == [(BYTES, FIRST), (RECORDS, SECOND)]


def test_answers_of_a_partition() -> None:
    """As the sample of the reference; to a list also the first as `metrics`, for those who read nothing else."""
    label = "total_put_bytes_per_partition"
    metric = Metric(label=label, points=(DataPoint(1606984320, 512),))
    wire = {"dataPoints": [{"timestamp": 1606984320, "value": 512}], "label": label}
    assert json.loads(encode_partition_metrics([metric], listed=False)) == {"metrics": wire}
    other = Metric(label="total_get_bytes_per_partition")
    body = encode_partition_metrics([metric, other], listed=True)
    assert json.loads(body) == {
        "metrics": wire,
        "metrics_list": [wire, {"dataPoints": [], "label": "total_get_bytes_per_partition"}],
    }
    assert decode_metrics(body) == {label: metric, other.label: other}


@pytest.mark.parametrize(
    ("body", "meant"),
    [
        (b"{}", {}),
        (b'{"metrics":null,"metrics_list":null}', {}),
        (b'{"metrics":{"dataPoints":[]}}', {}),
        (b'{"metrics":{"label":"l"}}', {"l": Metric(label="l")}),
        (b'{"metrics":{"label":"l","dataPoints":null,"x":1}}', {"l": Metric(label="l")}),
        (
            b'{"metrics_list":[{"label":"l","dataPoints":[{"timestamp":"120","value":"7"},{"timestamp":60,"value":2.0},'
            b'{"timestamp":180},{"timestamp":1606984320000,"value":3}]}]}',
            {"l": Metric(label="l", points=(DataPoint(60, 2), DataPoint(120, 7), DataPoint(1606984320, 3)))},
        ),
        (b'{"metrics":{"label":"traffic_controll_put"}}', {"traffic_control_put": Metric(label="traffic_control_put")}),
    ],
)
def test_answers_of_other_services(body: bytes, meant: dict[str, Metric]) -> None:
    """Absent, null, numbers as text, in any order, with a point, milliseconds, another spelling."""
    assert decode_metrics(body) == meant


@pytest.mark.parametrize("body", [b"", b"[]", b'{"metrics":{"label":"l","dataPoints":[{}]}}', b'{"metrics_list":[1]}'])
def test_answers_that_cannot_be(body: bytes) -> None:
    """Told as such."""
    with pytest.raises(TransportError, match="not what DIS answers"):
        decode_metrics(body)
