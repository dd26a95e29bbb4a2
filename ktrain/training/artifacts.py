"""The files that stages have in common: network and tokenizer, curve, metrics and their counts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from ktrain.bios.tokenizer import MASK, PAD
from ktrain.data.corpus import Corpus
from ktrain.model.forward import bidirectional
from ktrain.system import gpu_memory
from ktrain.training.progress import Progress, curve_records


def save_model(network: Any, corpus: Corpus, folder: Path) -> None:
    """Saves network and tokenizer in Hugging Face format."""
    network.save_pretrained(folder)
    eos = corpus.tokenizer.id_to_token(corpus.eos)
    fills = {"mask_token": MASK, "pad_token": PAD} if bidirectional(network) else {"pad_token": eos}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=corpus.tokenizer, bos_token=eos, eos_token=eos, clean_up_tokenization_spaces=False
    )
    # New tokens get the ids after the tokenizer's own, which are those of the network.
    tokenizer.add_special_tokens(fills)
    tokenizer.save_pretrained(folder)


def measurement_files(
    curve: Sequence[Progress],
    metrics: dict[str, float],
    counts: dict[str, int],
    intervals: dict[str, tuple[float, float]],
) -> dict[str, Any]:
    """Returns the JSON files of a readout: its curve, its metrics with peak memory and, if it trained, its speed, and
    the number of people and the interval of each metric.

    The speed counts the tokens of all adapters that train at once, so an adapter's tokens over it are its share of the
    time.
    """
    speed = {"speed/tokens_per_second": curve[-1].tokens_per_second} if curve else {}
    return {
        "curve.json": curve_records(curve),
        "metrics.json": metrics | speed | gpu_memory.memory_metrics(),
        "counts.json": {"n": counts, "interval": intervals},
    }
