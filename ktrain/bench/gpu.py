"""All GPU benchmarks in one command of ten minutes: `python -m ktrain.bench.gpu`.

Runs `bench train` and `bench fleet` at 124M without Ray and MLflow, and estimates the time of a whole pretraining.
"""

import json
import sys

from ktrain.bench import adapters, interleaved, profile, train
from ktrain.config import ModelConfig, ReadoutConfig, TrainConfig

SECONDS = 12.0
"""Measured seconds of each loop and round."""


def main(setting: TrainConfig, network: ModelConfig, seconds: float) -> None:
    """Prints each table when it is ready, and all results as JSON at the end."""
    trained = train.train(setting, network, seconds=seconds)
    print(train.text(trained), flush=True)
    speed = trained["rows"][0]["median"]
    hours = setting.steps * setting.batch * setting.context / speed / 3600
    print(f"a pretraining of {setting.steps:,} steps would take {hours:.2f} hours\n", flush=True)
    vocabulary = trained["setting"]["vocabulary"]
    print(profile.text(profile.step(setting, network, vocabulary)), flush=True)
    readouts = {
        "qa_finetune": ReadoutConfig(),
        "p_probe": ReadoutConfig.model_validate({"kind": "p_probe", "rank_qv": 0, "rank_embedding": 2, "batch": 50}),
        "q_probe": ReadoutConfig.model_validate({"kind": "q_probe", "rank_qv": 0, "rank_embedding": 16, "batch": 200}),
    }
    fleets = adapters.fleet(readouts, network, vocabulary, seconds=seconds)
    print(f"\n{interleaved.text(fleets)}", flush=True)
    json.dump({"train": trained, "hours": hours, "fleet": fleets}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main(TrainConfig(), ModelConfig(), SECONDS)
