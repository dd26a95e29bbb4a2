"""Resident windows: the rows of `Windows` on the device that trains."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ktrain.device import moved
from ktrain.windows import KINDS, Windows

RESIDENT = 500_000_000
"""Tokens of an epoch that a device holds at most, two bytes each."""


class Resident:
    """The rows of `Windows` on the device that trains, which holds the epochs they come from: only the first step of an
    epoch waits for a copy.

    An epoch that is too large stays with the host.
    """

    def __init__(self, windows: Windows, device: torch.device) -> None:
        self._windows, self._device = windows, device
        self._epochs: dict[tuple[str, int], Tensor] = {}

    def rows(self, step: int) -> Tensor:
        """The token ids of step `step`, (batch, T) int64 on the device."""
        kinds, index = self._windows.kind[step], self._windows.index[step]
        parts = [part for kind in np.unique(kinds) for part in self._slices(KINDS[kind], index[kinds == kind])]
        rows = torch.cat([moved(part, self._device) for part in parts])
        if (kinds != kinds[0]).any():
            places = np.argsort(np.argsort(kinds, kind="stable"))
            rows = rows[moved(torch.from_numpy(places), self._device)]
        return rows.long() & 0xFFFF

    def _slices(self, name: str, index: np.ndarray) -> Iterator[Tensor]:
        """Windows of one kind, whose numbers in its endless stream follow each other."""
        per_epoch = self._windows.streams[name].per_epoch
        first, end = int(index[0]), int(index[-1]) + 1
        while first < end:
            epoch, begin = divmod(first, per_epoch)
            taken = min(end - first, per_epoch - begin)
            yield self._epoch(name, epoch)[begin : begin + taken]
            first += taken

    def _epoch(self, name: str, number: int) -> Tensor:
        """An epoch of a kind, and only the one before it is still held."""
        if (name, number) not in self._epochs:
            # Few operations of a GPU know unsigned numbers.
            epoch = torch.from_numpy(self._windows.streams[name].epoch(number).view(np.int16))
            self._epochs = {key: held for key, held in self._epochs.items() if key[0] != name or key[1] == number - 1}
            self._epochs[name, number] = epoch.to(self._device) if epoch.numel() <= RESIDENT else epoch
        return self._epochs[name, number]
