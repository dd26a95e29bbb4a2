"""All that is to be measured on a GPU in one command of ten minutes: `python -m ktrain.bench.gpu`.

It needs no Ray and no MLflow: `bench train` and `bench fleet` at 124M, and how long a whole pretraining would take.
"""

import json
import sys

from ktrain.bench import fleet, profile, train, turns
from ktrain.config import Model, Readout, Train

SECONDS = 12.0
"""Of each loop and round."""


def main(setting: Train, network: Model, seconds: float) -> None:
    """Prints the tables as they come, and all of it as JSON at the end."""
    trained = train.train(setting, network, seconds=seconds)
    print(train.text(trained), flush=True)
    speed = trained["rows"][0]["median"]
    hours = setting.steps * setting.batch * setting.context / speed / 3600
    print(f"a pretraining of {setting.steps:,} steps would take {hours:.2f} hours\n", flush=True)
    vocabulary = trained["setting"]["vocabulary"]
    print(profile.text(profile.step(setting, network, vocabulary)), flush=True)
    readouts = {
        "qa_finetune": Readout(),
        "p_probe": Readout.model_validate({"kind": "p_probe", "rank_qv": 0, "rank_embedding": 2, "batch": 50}),
        "q_probe": Readout.model_validate({"kind": "q_probe", "rank_qv": 0, "rank_embedding": 16, "batch": 200}),
    }
    fleets = fleet.fleet(readouts, network, vocabulary, seconds=seconds)
    print(f"\n{turns.text(fleets)}", flush=True)
    json.dump({"train": trained, "hours": hours, "fleet": fleets}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main(Train(), Model(), SECONDS)
