"""Q-probes: what the state at the end of a name says of the person's attributes."""

from typing import TYPE_CHECKING

from ktrain.config import ATTRIBUTES, CellConfig, ReadoutConfig
from ktrain.data.token_estimates import name_width
from ktrain.readout.kinds.probe import WHOLE, ProbeKind
from ktrain.readout_registry import register

if TYPE_CHECKING:
    from ktrain.data.corpus import Corpus
    from ktrain.readout.probes import Rows


@register
class QueryProbe(ProbeKind):
    """A full name between a start and an end token (paper, section 4.2)."""

    name = "q_probe"
    title = "Q-probe"
    columns = tuple(f"first/{column}" for column in ("mean", *ATTRIBUTES))
    batch_norm = True

    def rows(self, corpus: "Corpus", readout: ReadoutConfig, pad: int | None = None) -> "Rows":
        """Names; a bidirectional network would read EOS as padding, so it has a token of its own."""
        from ktrain.readout import probes

        return probes.name_rows(corpus, corpus.eos if pad is None else pad)

    def row_tokens(self, cell: CellConfig) -> int:
        """A row is a name."""
        return name_width(cell.corpus)

    def charts(self) -> dict[str, tuple[str, ...]]:
        """First tokens and whole attributes."""
        mean, *attributes = (f"{self.metric_prefix}/{column}" for column in self.columns)
        return {
            "First token, mean": (mean,),
            "First token, by attribute": tuple(attributes),
            "Whole attribute": tuple(f"q_probe/whole/{column}" for column in WHOLE),
        }
