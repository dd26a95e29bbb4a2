import pytest

from ktrain.bench import interleaved, machine

HOST = {"device": "a core", "cores": 1, "torch": "2", "copied_bytes_per_second": 1e9}


def test_each_round_measures_the_peak_and_the_best_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first measurement, beside other work, gave a third of it."""
    later = iter([1.0, 3e9, 2e9])
    monkeypatch.setattr(interleaved, "ROUNDS", 3)
    monkeypatch.setattr(machine, "peak", lambda precision: next(later))
    host = {**HOST, "peak_flops": {"fp32": 1e9}}
    interleaved.interleave({"loop": lambda seconds: 1.0}, 1.0, host=host)
    assert host["peak_flops"] == {"fp32": 3e9}


@pytest.mark.parametrize("share", [0.98, 1.15])
def test_a_share_above_the_peak_is_a_disturbed_run(share: float) -> None:
    row = interleaved.Row("ktrain", 1.0, 0.0, "tok/s")
    measured = interleaved.result([row], {}, {"ktrain": share}, {**HOST, "peak_flops": {"fp32": 1e9}}, {}, "6 N")
    assert measured["disturbed"] == (["ktrain"] if share > 1 else [])
    assert ("a disturbed run: above the peak (ktrain)" in interleaved.text(measured)) == (share > 1)
