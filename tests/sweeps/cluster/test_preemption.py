"""Spot notices, from a server that answers as the metadata services of AWS and Google do, and a node of paper.

That a drained Ray node is left by its trials is in `tests/faults`.
"""

import json
import re
import time
from collections.abc import Iterator

import pytest

from ktrain.errors import WrongRequest
from sweeps.cli import main
from sweeps.cluster import preemption
from sweeps.cluster.preemption import Aws, Gcp, Notice, service, watch
from tests.faults.cloud import ACTION, PREEMPTED, REBALANCE, Cloud, serving


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with serving() as service:
        yield service


class FakeNode:
    """A node that records its drains and stays alive for `looks` requests."""

    def __init__(self, looks: int = 1_000, silent: bool = False) -> None:
        self.drained: list[Notice] = []
        self.looks, self.silent = looks, silent

    def drain(self, notice: Notice) -> None:
        self.drained.append(notice)

    def is_alive(self) -> bool:
        self.looks -= 1
        if self.silent:
            raise ConnectionError("no answer")
        return self.looks > 0


def test_aws_says_nothing_until_it_does(cloud: Cloud) -> None:
    aws = Aws(cloud.address)
    assert aws.notice() is None
    cloud.aws(REBALANCE, '{"noticeTime": "2026-11-05T08:00:00Z"}')
    assert aws.notice() == Notice("rebalance recommendation", None)
    cloud.aws(ACTION, '{"action": "terminate", "time": "2026-11-05T08:22:00Z"}')
    assert aws.notice() == Notice("spot terminate", 1793866920.0)


def test_a_token_that_has_run_out_is_replaced(cloud: Cloud) -> None:
    aws = Aws(cloud.address)
    assert [aws.notice() for _ in range(6)] == [None] * 6
    assert 4 <= len(cloud.left) <= 6, "two questions each time, three for a token"


def test_google_gives_half_a_minute(cloud: Cloud) -> None:
    cloud.says[PREEMPTED] = "FALSE"
    assert Gcp(cloud.address).notice() is None
    cloud.says[PREEMPTED] = "TRUE"
    notice = Gcp(cloud.address).notice()
    assert notice is not None and notice.deadline is not None
    assert notice.reason == "spot preempted" and 20 < notice.deadline - time.time() <= 30


def test_a_likelihood_drains_and_a_time_that_follows_drains_again(cloud: Cloud) -> None:
    node, aws, said = FakeNode(), Aws(cloud.address), []
    cloud.aws(REBALANCE, "{}")

    def drain(notice: Notice) -> None:
        said.append(notice.reason)
        cloud.aws(ACTION, '{"action": "stop", "time": "2026-11-05T08:22:00Z"}')

    node.drain = drain
    notice = watch(aws, node, every=0.001)
    assert said == ["rebalance recommendation", "spot stop"]
    assert notice is not None and notice.deadline


def test_it_ends_with_the_node(cloud: Cloud) -> None:
    assert watch(Aws(cloud.address), FakeNode(looks=3), every=0.001) is None
    node = FakeNode(silent=True)
    assert watch(Aws(cloud.address), node, every=0.001) is None
    assert 1_000 - node.looks == preemption.MOST_UNANSWERED
    assert not node.drained


def test_a_service_that_fails_for_a_while_is_asked_again(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    node, answers = FakeNode(), iter([OSError("late"), ConnectionError("later"), Notice("spot terminate", 1.0)])

    def notice(_: Aws) -> Notice:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(Aws, "notice", notice)
    assert watch(Aws(cloud.address), node, every=0.001) == Notice("spot terminate", 1.0)
    assert len(node.drained) == 1


def test_the_cloud_is_found_by_its_answer(cloud: Cloud) -> None:
    assert isinstance(service("auto", cloud.address), Aws)
    assert isinstance(service("gcp", cloud.address), Gcp)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--cloud", "gpc"], r"cloud=gpc: must be one of auto, aws, gcp; did you mean gcp\?"),
        (["--cloud", "aws", "--metadata", "http://127.0.0.1:1"], "cloud=aws: no metadata service answers .*refused"),
        (["--every", "0"], "every=0: must be above 0 and below 60 seconds"),
        (["--node-id", "ab"], "watch-preemption: --address and --node-id go together"),
    ],
)
def test_a_wrong_request_is_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch-preemption", *words]) == 2
    said = capsys.readouterr()
    assert re.fullmatch(f"ktrain: {line}.*\n", said.err) and not said.out


def test_a_service_without_ray_is_a_wrong_request(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> preemption.Node:
        raise WrongRequest("watch-preemption: no Ray runs on this machine")

    monkeypatch.setattr(preemption.Node, "here", absent)
    assert main(["watch-preemption", "--cloud", "aws", "--metadata", cloud.address]) == 2
    assert json.dumps(cloud.requests).count(ACTION) == 1
