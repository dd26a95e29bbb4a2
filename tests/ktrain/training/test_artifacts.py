from ktrain.training.artifacts import measurement_files
from ktrain.training.progress import Progress


def test_a_readout_that_trains_records_its_speed() -> None:
    curve = [Progress(k, 2, 1.0, 1e-3, tokens=600 * k, seconds=3.0 * k) for k in (1, 2)]
    metrics = measurement_files(curve, {"qa/exact_match/test/mean": 0.5}, {}, {})["metrics.json"]
    assert metrics["speed/tokens_per_second"] == 200.0 and metrics["qa/exact_match/test/mean"] == 0.5
    assert "speed/tokens_per_second" not in measurement_files([], {}, {}, {})["metrics.json"]
