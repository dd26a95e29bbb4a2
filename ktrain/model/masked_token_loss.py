"""The loss of a bidirectional network: the cross-entropy of the tokens that it has to fill in (paper, appendix B)."""

from typing import Any

from torch import Tensor, nn

from ktrain.model.chunked_cross_entropy import ChunkedCrossEntropy
from ktrain.model.forward import PositionTables, hidden_states
from ktrain.model.network_dropout import training_dropout


class MaskedTokenLoss(nn.Module):
    """Loss of filling in: forward(ids, targets, weights), each (rows, T), is the weighted sum of cross-entropies.

    With `places` (rows, P) int64, the loss is of the tokens there alone, whose targets and weights (rows, P) are given:
    the last layer and the logits of other tokens are never computed.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network, self.tables = network, PositionTables(network)
        self.output = ChunkedCrossEntropy(network.get_output_embeddings())

    def forward(self, ids: Tensor, targets: Tensor, weights: Tensor, places: Tensor | None = None) -> Tensor:
        dropout = training_dropout(self.network, ids)
        states = hidden_states(self.network, ids, dropout, places, tables=self.tables)
        loss: Tensor = self.output(states.flatten(0, 1), targets.flatten(), weights.flatten())
        return loss
