"""Progress on its way from the training loop to the driver."""

import pickle
from typing import Any

from ktrain.training.progress import Progress, Reporter, StackProgress, StageLine, as_result, from_result, stage_lines

LOSSES = (3.0, 5.0)


def progress(step: int, steps: int = 400) -> Progress:
    return Progress(step, steps, 4.0, 1e-3, 9 * step, step / 10, members=LOSSES, apart=60.0)


def through_ray(results: list[dict[str, Any]]) -> list[tuple[str, Progress]]:
    """Results as the driver gets them, with fields of Ray's own."""
    return [from_result(pickle.loads(pickle.dumps(result)) | {"training_iteration": 1}) for result in results]


def test_a_stage_that_trains_alone_has_the_lines_that_its_curve_will_have() -> None:
    results: list[dict[str, Any]] = []
    reporter = Reporter(lambda key, line: results.append(as_result(key, line)), "alone")
    for step in (3, 4, 399, 400):
        reporter.report(progress(step))
    lines = [stage_lines(*reported) for reported in through_ray(results)]
    assert lines == [{}, {"alone": StageLine(4, 1e-3, 0.4, 4.0)}, {}, {"alone": StageLine(400, 1e-3, 40.0, 4.0)}]


def test_the_progress_of_a_batch_of_adapters_has_a_line_for_each_stage() -> None:
    def lines(progress: Progress) -> dict[str, StageLine]:
        return {
            key: StageLine(progress.step, 1e-3, 0.4, loss) for key, loss in zip("ab", progress.members, strict=True)
        }

    results: list[dict[str, Any]] = []
    reporter = Reporter(lambda key, line: results.append(as_result(key, line)), "a")
    reporter.for_batch(1, 3, lines).report(progress(4))
    ((key, reported),) = through_ray(results)
    # The view shows the steps of all batches, the curve those of the stage.
    assert (key, reported.step, reported.steps, reported.loss) == ("a", 404, 1200, 4.0)
    assert stage_lines(key, reported) == {"a": StageLine(4, 1e-3, 0.4, 3.0), "b": StageLine(4, 1e-3, 0.4, 5.0)}


def test_a_report_of_many_adapters_is_small() -> None:
    """Those of Figure 2 are thirty."""
    lines = {
        f"qa-finetune-124m-multi5.permute5-n100000-{k:08x}": StageLine(4, 1e-3, 0.4, 1 / (k + 3)) for k in range(30)
    }
    reported = StackProgress(4, 400, 4.0, 1e-3, 36, 0.4, lines=lines)
    assert len(pickle.dumps(as_result("a", reported))) < 4_000
