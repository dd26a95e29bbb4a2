"""The paper's central contrast on a laptop: one biography of each person, or five wordings in shuffled order."""

from ray import tune

from sweeps import Sweep

sweep = Sweep(
    name="demo",
    question="Can a model answer questions about people whom it has only read about?",
    figure="fig3",
    grid={
        "setting": tune.grid_search(
            [
                {"corpus.multi": 1, "corpus.permute": 0},
                {"corpus.multi": 5, "corpus.permute": 1},
            ]
        )
    },
)
