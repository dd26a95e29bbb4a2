"""Stages: the units of work with a result worth keeping, and the keys by which results are found again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ktrain import background, forms, pools, rule_writer, templates, tokenizer
from ktrain.config import Cell, Corpus, Readout, Writer
from ktrain.errors import WrongRequest
from ktrain.keys import content_digest, digest, stage_key

VERSIONS = {
    "text": 1, "corpus": 1, "biographies": 1, "pretrain": 1, "qa_finetune": 2, "mixed": 2, "p_probe": 1, "q_probe": 1,
}  # fmt: skip
"""Raised by hand when a stage's code comes to give other results; every key of the stage and after it changes.
`text` is what a language model is asked and whether its drafts are accepted, `biographies` what a corpus of bioR has
besides: forms, verifier, rewording and the rule-based writer."""


@dataclass(frozen=True)
class Stage:
    """One stage: `identity` is everything that can change its result, `parent` the stage that it starts from."""

    kind: str
    key: str
    identity: dict[str, Any]
    parent: "Stage | None" = None


def chain(cell: Cell) -> tuple[Stage, Stage, Stage]:
    """Corpus, pretraining and readout of a cell; cells that agree on a stage's identity share the stage."""
    told = _setting(cell.corpus)
    corpus = _stage("corpus", told, {"corpus": _content(cell.corpus), "seed": cell.seed})
    mixed = f"-qa{cell.train.qa_ratio:g}" if cell.train.qa_ratio else ""
    network = cell.model.size if cell.model.family == "gpt2" else f"{cell.model.family}-{cell.model.size}"
    pretrain = _stage(
        "pretrain",
        f"{network}-{told}{mixed}",
        {"model": cell.model.model_dump(), "train": cell.train.model_dump(), "seed": cell.seed},
        corpus,
    )
    readout = _stage(
        cell.readout.kind,
        f"{network}-{told}{mixed}",
        {"readout": _asked(cell.readout), "seed": cell.seed},
        pretrain,
    )
    return corpus, pretrain, readout


def texts(cell: Cell) -> list[tuple[Stage, str, int]]:
    """What a language model writes for a cell: a stage for the m-th biographies of each group of people, with both.

    Cells whose people are the same share them, however many biographies they have and in whatever order: `multi5` has
    the one of `single`, and four more. None where no model writes.
    """
    corpus = cell.corpus
    if corpus.kind == "bioS" or corpus.writer.backend == "rules":
        return []
    content = content_digest(pools.files(corpus.pools_folder))
    groups = [("minority", corpus.people, corpus.multi, {"people": corpus.people})]
    if corpus.celebrities:
        # Who is a celebrity depends on whose names are taken.
        who = {"people": corpus.people, "celebrities": corpus.celebrities}
        groups.append(("celebrity", corpus.celebrities, corpus.celebrity.multi, who))
    found = []
    for group, count, multi, who in groups:
        about = {**who, "pools": corpus.pools.model_dump(), "pools_content": content}
        identity = {"group": group, "people": about, "writer": _asked_of(corpus.writer), "seed": cell.seed}
        found += [(_stage("text", f"{group}{m}-n{count}", {**identity, "m": m}), group, m) for m in range(multi)]
    return found


def grouped(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells of one pretraining whose readouts are trained as one fleet: they may differ in their ranks only.

    Cells that train whole networks, or nothing, are alone.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        readout = cell.readout.model_dump(exclude={"rank_qv", "rank_embedding"} if cell.readout.adapted else None)
        groups.setdefault(digest(readout), []).append(cell)
    return list(groups.values())


def cell_key(cell: Cell) -> str:
    """The key of a cell: the hash of all its axes and of what its data folders hold."""
    axes = {**cell.model_dump(), "corpus": _content(cell.corpus), "readout": _asked(cell.readout)}
    return f"{_setting(cell.corpus)}-s{cell.seed}-{digest(axes)}"


def lowest_recall(metrics: Mapping[str, float]) -> float:
    """The recall that the gate looks at: of all people, or of the group that recalls least."""
    return min(value for name, value in metrics.items() if name.startswith("recall/"))


def axes(cell: Cell) -> dict[str, Any]:
    """All identity fields by their axis names, such as `corpus.multi`."""

    def flat(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {path: value}
        return {k: v for name, inner in value.items() for k, v in flat(inner, f"{path}.{name}".lstrip(".")).items()}

    return flat(cell.model_dump(), "")


def _stage(kind: str, readable: str, identity: dict[str, Any], parent: Stage | None = None) -> Stage:
    identity = {"kind": kind, "version": VERSIONS[kind], **identity, "parent": parent.key if parent else None}
    return Stage(kind, stage_key(f"{kind.replace('_', '-')}-{readable}", identity), identity, parent)


def _content(corpus: Corpus) -> dict[str, Any]:
    """The setting with the content of its folders in place of their paths.

    What there is none of says nothing: neither do celebrities' settings where there are no celebrities.
    """
    absent = {"couple"} if not corpus.couple else set()
    absent |= {"celebrity_fraction", "celebrity"} if not corpus.celebrity_fraction else set()
    absent |= {"background", "background_share"} if corpus.background is None else {"background"}
    setting = corpus.model_dump(exclude={"pools_folder", "templates_folder", "writer", *absent})
    if corpus.kind == "bioR":
        setting["writer"] = _written(corpus.writer)
    if corpus.background is not None:
        named = corpus.background != background.TO_BE_NAMED
        setting["background_content"] = content_digest(background.files(corpus.background)) if named else None
    setting["pools_content"] = content_digest(pools.files(corpus.pools_folder))
    setting["templates_content"] = content_digest(templates.files(corpus.templates_folder))
    if corpus.tokenizer == "gpt2":
        setting["tokenizer_content"] = tokenizer.SHA256
    return setting


def _written(writer: Writer) -> dict[str, Any]:
    """The writer of bioR, with the content of files; rules have nothing else that could be set."""
    said: dict[str, Any] = {"version": VERSIONS["biographies"], "forms_content": content_digest(forms.files())}
    if writer.backend == "rules":
        return said | {"backend": "rules", "phrases_content": content_digest([rule_writer.PHRASES])}
    return said | {"text_version": VERSIONS["text"]} | _asked_of(writer)


def _asked_of(writer: Writer) -> dict[str, Any]:
    """A language model and how it is asked; of files here, what they hold and not where. Raises `WrongRequest`."""
    told, path = writer.model_dump(), Path(writer.model)
    if writer.backend == "gguf" and not path.is_file():
        raise WrongRequest(f"corpus.writer.model={path}: no such GGUF file")
    if writer.backend != "http" and path.exists():
        files = [path] if path.is_file() else [inner for inner in path.rglob("*") if inner.is_file()]
        told["model_content"] = content_digest(files)
        del told["model"]
    return told


def _asked(readout: Readout) -> dict[str, Any]:
    """The readout; that people under test are trained on goes without saying."""
    return readout.model_dump(exclude={"people"} if readout.people == "minority" else None)


def _setting(corpus: Corpus) -> str:
    """Short name of a setting, such as `multi5.permute1.fullname-n500`."""
    parts = [] if corpus.kind == "bioS" else ["bior.rules" if corpus.writer.backend == "rules" else "bior"]
    parts += [f"couple{corpus.couple}" if corpus.couple else f"multi{corpus.multi}" if corpus.multi > 1 else "single"]
    parts += [f"permute{corpus.permute}"] if corpus.permute else []
    parts += ["fullname"] if corpus.fullname else []
    parts += [f"cel{corpus.celebrity_fraction:g}"] if corpus.celebrity_fraction else []
    parts += ["text"] if corpus.background is not None else []
    return f"{'.'.join(parts)}-n{corpus.people}"
