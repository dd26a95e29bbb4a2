"""The learning-rate schedule (paper, appendices B and C)."""

import math
from dataclasses import dataclass

from ktrain.config import ReadoutConfig, TrainConfig


@dataclass(frozen=True)
class LearningRateSchedule:
    """Linear warm-up to `peak`, then a cosine or a straight line to `final` of the peak."""

    peak: float
    final: float
    warmup: int
    steps: int
    decay: str = "cosine"

    def rate(self, step: int) -> float:
        """Returns the learning rate of step `step`, counted from 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        left = 1 - done if self.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.peak * (self.final + (1 - self.final) * left)


def schedule_of(setting: TrainConfig | ReadoutConfig) -> LearningRateSchedule:
    """Returns the schedule of a stage: only pretraining warms up, and it always decays along a cosine."""
    warmup, decay = (setting.warmup, "cosine") if isinstance(setting, TrainConfig) else (0, setting.decay)
    return LearningRateSchedule(setting.learning_rate, setting.final_learning_rate, warmup, setting.steps, decay)
