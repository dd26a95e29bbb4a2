"""The paper's central contrast on a laptop: one biography of each person, or five wordings in shuffled order."""

from sweeps import Sweep, grid_search

sweep = Sweep(
    name="demo",
    question="Can a model answer questions about people whom it has only read about?",
    figure="fig3",
    grid={
        "setting": grid_search(
            [
                {"corpus.multi": 1, "corpus.permute": 0},
                {"corpus.multi": 5, "corpus.permute": 1},
            ]
        )
    },
)
