"""Training windows gathered on the device."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ktrain.data.packing import WINDOW_KINDS, Windows
from ktrain.system.device import to_device

RESIDENT = 500_000_000
"""Largest epoch, in tokens of two or four bytes, that is copied to the device."""
SIGNED = {2: np.int16, 4: np.int32}
"""The types that ids are held in, by their bytes: PyTorch supports few operations on unsigned ones."""


class DeviceWindows:
    """The rows of `Windows` on the training device.

    The device holds the packed epochs, so only the first step of an epoch waits for a copy.

    An epoch of more than `RESIDENT` tokens stays in host memory.
    """

    def __init__(self, windows: Windows, device: torch.device) -> None:
        self._windows, self._device = windows, device
        self._epochs: dict[tuple[str, int], Tensor] = {}

    def rows(self, step: int) -> Tensor:
        """The token ids of step `step`, (batch, T) int64 on the device."""
        kinds, index = self._windows.kind[step], self._windows.index[step]
        parts = [part for kind in np.unique(kinds) for part in self._slices(WINDOW_KINDS[kind], index[kinds == kind])]
        rows = torch.cat([to_device(part, self._device) for part in parts])
        if (kinds != kinds[0]).any():
            # `rows` is sorted by kind; the inverse permutation restores the order of the batch.
            sorted_place = np.argsort(np.argsort(kinds, kind="stable"))
            rows = rows[to_device(torch.from_numpy(sorted_place), self._device)]
        # The mask undoes the sign of ids above half of the type.
        mask: int = (1 << 8 * rows.element_size()) - 1
        return rows.long() & mask

    def _slices(self, name: str, index: np.ndarray) -> Iterator[Tensor]:
        """Slices (n, T) of the epochs that hold the consecutive windows `index` of one kind."""
        stream = self._windows.streams[name]
        first, end = int(index[0]), int(index[-1]) + 1
        while first < end:
            epoch, begin = stream.locate(first)
            count = min(end - first, stream.count(epoch) - begin)
            yield self._epoch(name, epoch)[begin : begin + count]
            first += count

    def _epoch(self, name: str, number: int) -> Tensor:
        """Epoch `number` of a kind, (windows, T); of the kind's earlier epochs only the previous one is kept."""
        if (name, number) not in self._epochs:
            windows = self._windows.streams[name].epoch(number)
            epoch = torch.from_numpy(windows.view(SIGNED[windows.itemsize]))
            self._epochs = {key: held for key, held in self._epochs.items() if key[0] != name or key[1] == number - 1}
            self._epochs[name, number] = epoch.to(self._device) if epoch.numel() <= RESIDENT else epoch
        return self._epochs[name, number]
