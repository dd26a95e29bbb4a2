"""P-probes: what the states before each attribute of a biography say of the attributes that follow."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ktrain.config import ATTRIBUTES, CellConfig, ReadoutConfig
from ktrain.data.token_estimates import entry_width
from ktrain.readout.kinds.probe import WHOLE, ProbeKind
from ktrain.readout_registry import register

if TYPE_CHECKING:
    from ktrain.data.corpus import Corpus
    from ktrain.readout.probes import Rows


@register
class PositionProbe(ProbeKind):
    """A position for each attribute of a biography, the token before it (paper, section 4.1)."""

    name = "p_probe"
    title = "P-probe"
    columns = tuple(f"first/0/{column}" for column in ("mean", *ATTRIBUTES))

    def check_cell(self, cell: CellConfig) -> None:
        """A network that sees what follows a position would read the answer there."""
        super().check_cell(cell)
        if cell.model.family == "gbert":
            raise ValueError("readout.kind=p_probe: model.family=gbert sees the tokens after a place")

    def rows(self, corpus: "Corpus", readout: ReadoutConfig, pad: int | None = None) -> "Rows":
        """Biographies up to their last position."""
        from ktrain.readout import probes

        return probes.biography_rows(corpus, readout.entries)

    def row_tokens(self, cell: CellConfig) -> int:
        """A row is a biography."""
        return entry_width(cell.corpus)

    def examples_per_person(self, cell: CellConfig) -> int:
        """Every biography is read."""
        return cell.corpus.entries_per_person

    def places(self, attributes: Sequence[str]) -> tuple[str, ...]:
        """Before each attribute, counted from 0, and `own`, the one right before the attribute asked for."""
        return (*map(str, range(len(attributes))), "own")

    def charts(self) -> dict[str, tuple[str, ...]]:
        """Before all attributes, and the mean before each."""
        mean, *attributes = (f"{self.metric_prefix}/{column}" for column in self.columns)
        positions = tuple(f"p_probe/first/{place}/mean" for place in (1, 2, 3, 4, 5, "own"))
        return {
            "First token, before all attributes, mean": (mean,),
            "First token, before all attributes": tuple(attributes),
            "First token, mean, before later ones and its own": positions,
            "Whole attribute, before all attributes": tuple(f"p_probe/whole/0/{column}" for column in WHOLE),
        }
