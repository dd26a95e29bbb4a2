"""The rows on a device are those of the host; the oracle is `Windows`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ktrain.config import TrainConfig
from ktrain.data import device_windows as residents
from ktrain.data.corpus import Corpus
from ktrain.data.device_windows import DeviceWindows
from ktrain.data.packing import Windows

Tiny = Callable[..., Corpus]


def made(corpus: Corpus, **changes: Any) -> Windows:
    train = TrainConfig.model_validate({"steps": 60, "batch": 8, "context": 64, "warmup": 0} | changes)
    return Windows(corpus, "key", train, 0)


WHOLE = {"windows": "whole", "context": 192}


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"qa_ratio": 0.5},
        {"batch": 600},
        WHOLE,
        {"qa_ratio": 0.5, **WHOLE},
        {"batch": 600, "qa_ratio": 0.5, **WHOLE},
    ],
)
def test_rows_on_a_device_are_those_of_the_host(tiny: Tiny, setting: dict[str, Any]) -> None:
    """Also where a batch holds whole epochs."""
    made_of = made(tiny(multi=2), steps=60, **setting)
    device = DeviceWindows(made_of, torch.device("cpu"))
    assert made_of.streams["biography"].count(0) < 300
    for step in np.random.default_rng(0).permutation(60):
        rows = device.rows(int(step))
        assert rows.dtype == torch.int64
        assert np.array_equal(rows.numpy(), made_of.rows(int(step)))


def test_an_epoch_that_is_too_large_stays_with_the_host(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Biographies do, questions do not; a batch of both is on the device all the same."""
    made_of, device = made(tiny(multi=2), steps=60, qa_ratio=0.5), torch.device("meta")
    sizes = [made_of.streams[kind].epoch(0).size for kind in ("question", "biography")]
    monkeypatch.setattr(residents, "RESIDENT", sum(sizes) // 2)
    monkeypatch.setattr(residents, "to_device", lambda tensor, where: tensor.to(where))
    assert sizes[0] < sizes[1]
    resident = DeviceWindows(made_of, device)
    assert set(made_of.kinds(0)) == {"biography", "question"}
    assert resident.rows(0).device == device and resident.rows(0).shape == (8, 64)
    assert resident._epoch("biography", 0).device.type == "cpu" and resident._epoch("question", 0).device == device


def test_no_more_than_two_epochs_are_held(tiny: Tiny) -> None:
    made_of = made(tiny(), steps=300)
    resident = DeviceWindows(made_of, torch.device("cpu"))
    for step in range(300):
        resident.rows(step)
        assert len(resident._epochs) <= 2
    assert min(number for _, number in resident._epochs) > 2
