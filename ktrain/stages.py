"""Stages: the units of work with a result worth keeping, and the keys by which results are found again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ktrain.bior import rule_writer, surface_forms
from ktrain.bios import pools, question_wordings, templates, tokenizer
from ktrain.config import NEWER, CellConfig, CorpusConfig, WriterConfig
from ktrain.data import background
from ktrain.errors import WrongRequest
from ktrain.fingerprint import content_digest, digest, flatten, stage_key
from ktrain.readout_registry import kind_of

SHAPE_AXES = ("model.config", "model.start", "model.layers", "model.heads", "model.width")
"""Axes that take the place of `model.size` or of a part of it, where they are set."""
QUESTION_AXES = ("corpus.questions_folder", "corpus.question_wordings", "corpus.question_unseen")
"""Axes that say how questions are worded, where that is not as in the paper."""
VERSIONS = {
    "text": 2, "corpus": 1, "biographies": 1, "pretrain": 2,
}  # fmt: skip
"""Raised by hand when a stage's code gives other results; it changes every key of the stage and of those after it.
`text` covers the prompts of a language model and the acceptance of its drafts; `biographies` what else a corpus of bioR
depends on: surface forms, verifier, rewording and the rule-based writer. Each readout kind has its own `version`."""


@dataclass(frozen=True)
class Stage:
    """One stage: `identity` holds everything that can change its result, `parent` is the stage that it starts from."""

    kind: str
    key: str
    identity: dict[str, Any]
    parent: "Stage | None" = None


class Stages(NamedTuple):
    """The stages of a cell, each the parent of the next."""

    corpus: Stage
    pretrain: Stage
    readout: Stage

    @property
    def trained(self) -> tuple[Stage, Stage]:
        """The stages that train a network."""
        return self.pretrain, self.readout


def stages_of(cell: CellConfig) -> Stages:
    """Returns the stages of a cell; cells that agree on a stage's identity share the stage."""
    setting = _setting(cell.corpus)
    corpus = _stage("corpus", setting, {"corpus": _content(cell.corpus), "seed": cell.seed})
    mixed = f"-qa{cell.train.qa_ratio:g}" if cell.train.qa_ratio else ""
    network = cell.model.name if cell.model.family == "gpt2" else f"{cell.model.family}-{cell.model.name}"
    pretrain = _stage(
        "pretrain",
        f"{network}-{setting}{mixed}",
        {"model": cell.model.identity(), "train": cell.train.identity(), "seed": cell.seed, **_read_questions(cell)}
        | _own_attributes(cell),
        corpus,
    )
    readout = _stage(
        cell.readout.kind,
        f"{network}-{setting}{mixed}",
        {"readout": _readout_identity(cell), "seed": cell.seed, **_asked_questions(cell)} | _own_attributes(cell),
        pretrain,
    )
    return Stages(corpus, pretrain, readout)


def texts(cell: CellConfig) -> list[tuple[Stage, str, int]]:
    """Returns what a language model writes for a cell: for each group of people and each m, the stage of their m-th
    biographies, with group and m. Empty if no language model writes.

    Cells with the same people share these stages, whatever their number and order of biographies: `multi5` uses that of
    `single`, and four more.
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
    stages = []
    for group, count, multi, who in groups:
        drawn = {**who, "pools": corpus.pools.model_dump(), "pools_content": content}
        identity = {"group": group, "people": drawn, "writer": _model_identity(corpus.writer), "seed": cell.seed}
        stages += [(_stage("text", f"{group}{m}-n{count}", {**identity, "m": m}), group, m) for m in range(multi)]
    return stages


def grouped(cells: Sequence[CellConfig]) -> list[list[CellConfig]]:
    """Groups cells of one pretraining whose readouts train together: adapters that differ in their ranks only.

    A cell that trains a whole network, or nothing, is a group of its own.
    """
    groups: dict[str, list[CellConfig]] = {}
    for cell in cells:
        shared = kind_of(cell.readout.kind).shared(cell.readout)
        groups.setdefault(digest({**shared, **_asked_questions(cell)}), []).append(cell)
    return list(groups.values())


def cell_key(cell: CellConfig) -> str:
    """Returns the key of a cell: it hashes all axes and the content of data folders."""
    parts = {"corpus": _content(cell.corpus), "model": cell.model.identity()}
    parts |= {"train": cell.train.identity(), "readout": _readout_identity(cell)}
    parts |= _read_questions(cell) | _asked_questions(cell)
    return f"{_setting(cell.corpus)}-s{cell.seed}-{digest({**cell.model_dump(), **parts})}"


def lowest_recall(metrics: Mapping[str, float]) -> float:
    """Returns the recall that the gate tests: that of all people, or of the group with the lowest."""
    return min(value for name, value in metrics.items() if name.startswith("recall/"))


def axes(cell: CellConfig) -> dict[str, Any]:
    """Returns all identity fields by axis name, such as `corpus.multi`; `readout.dropout` is the rate in force, and
    `model.size` says what the network has, such as `8x256h4`, where that is no named size. `model.config` or
    `model.start` is the name of a network of `hf`, which `model.size` then is too."""
    in_force = {"readout.dropout": cell.readout_dropout, "model.size": cell.model.name}
    return flatten(cell.model_dump()) | in_force | {
        "model.config": cell.model.name_of_config or None, "model.start": cell.model.name_of_start or None,
    }  # fmt: skip


def active_axes(cell: CellConfig) -> dict[str, Any]:
    """Returns the axes that can change this cell: none of the writer where templates write, none of absent celebrities
    or background text, none that its kind of readout does not read."""
    return {axis: value for axis, value in axes(cell).items() if _is_active(axis, cell)}


def _is_active(axis: str, cell: CellConfig) -> bool:
    part, _, field = axis.partition(".")
    if axis == "readout.modules":
        return cell.readout.adapted and cell.readout.modules is not None
    if part == "readout":
        return field == "kind" or kind_of(cell.readout.kind).reads(field, cell.readout)
    if axis.startswith("corpus.writer."):
        by_rules = cell.corpus.writer.backend == "rules"
        return cell.corpus.kind == "bioR" and (not by_rules or axis == "corpus.writer.backend")
    if axis.startswith("corpus.celebrity."):
        return bool(cell.corpus.celebrity_fraction)
    if axis in QUESTION_AXES:
        return cell.corpus.own_questions and (bool(cell.train.qa_ratio) or kind_of(cell.readout.kind).asks)
    if part == "train" and field in NEWER:
        return field in cell.train.identity() or (field == "forgetting_text" and cell.train.forgetting_text is not None)
    if axis in SHAPE_AXES:
        return getattr(cell.model, field) is not None
    if axis == "corpus.validation_share":
        return bool(cell.corpus.validation_share)
    return axis != "corpus.background_share" or cell.corpus.background is not None


def _stage(kind: str, readable: str, identity: dict[str, Any], parent: Stage | None = None) -> Stage:
    version = VERSIONS[kind] if kind in VERSIONS else kind_of(kind).version
    identity = {"kind": kind, "version": version, **identity, "parent": parent.key if parent else None}
    return Stage(kind, stage_key(f"{kind.replace('_', '-')}-{readable}", identity), identity, parent)


def _content(corpus: CorpusConfig) -> dict[str, Any]:
    """Returns the identity of a corpus, with the content of folders in place of their paths.

    Settings of absent parts are left out, such as those of celebrities where there are none.
    """
    absent = {"couple"} if not corpus.couple else set()
    absent |= {"celebrity_fraction", "celebrity"} if not corpus.celebrity_fraction else set()
    absent |= {"background", "background_share"} if corpus.background is None else {"background"}
    absent |= {"validation_share"} if not corpus.validation_share else set()
    folders = {"pools_folder", "templates_folder", "questions_folder"}
    setting = corpus.model_dump(exclude={"writer", "question_wordings", "question_unseen", *folders, *absent})
    if corpus.kind == "bioR":
        setting["writer"] = _writer_identity(corpus.writer)
    if corpus.background is not None:
        named = corpus.background != background.UNNAMED
        setting["background_content"] = content_digest(background.files(corpus.background)) if named else None
    setting["pools_content"] = content_digest(pools.files(corpus.pools_folder))
    setting["templates_content"] = content_digest(templates.files(corpus.templates_folder, corpus.attributes))
    if own := corpus.own_attributes:
        first = question_wordings.first_wordings(corpus)
        setting["own_questions"] = {attribute: first[attribute][0] for attribute in own}
    if corpus.tokenizer == "gpt2":
        setting["tokenizer_content"] = tokenizer.SHA256
    if corpus.tokenizer_file is not None:
        del setting["tokenizer"]
        setting |= corpus.tokenizer_file.identity()
    return setting


def _read_questions(cell: CellConfig) -> dict[str, Any]:
    """Returns the identity of the questions read in pretraining; nothing if they are worded as in the paper."""
    return question_wordings.identity(cell.corpus) if cell.train.qa_ratio else {}


def _asked_questions(cell: CellConfig) -> dict[str, Any]:
    """Returns the identity of the questions of a readout; nothing if they are worded as in the paper, or if it asks
    none. A corpus has the people's values, whatever is asked of them."""
    return question_wordings.identity(cell.corpus) if kind_of(cell.readout.kind).asks else {}


def _own_attributes(cell: CellConfig) -> dict[str, Any]:
    """Returns the names of the attributes besides the six, by which a stage's metrics are known; nothing if none."""
    own = cell.corpus.own_attributes
    return {"attributes": list(own)} if own else {}


def _writer_identity(writer: WriterConfig) -> dict[str, Any]:
    """Returns the identity of bioR's writer; of rules, only versions and content of files."""
    forms = content_digest(surface_forms.files())
    identity: dict[str, Any] = {"version": VERSIONS["biographies"], "forms_content": forms}
    if writer.backend == "rules":
        return identity | {"backend": "rules", "phrases_content": content_digest([rule_writer.PHRASES])}
    return identity | {"text_version": VERSIONS["text"]} | _model_identity(writer)


def _model_identity(writer: WriterConfig) -> dict[str, Any]:
    """Returns the identity of a language model and its prompt, with the content of local files in place of their path.

    Raises `WrongRequest` if a GGUF file does not exist.
    """
    identity, path = writer.model_dump(), Path(writer.model)
    if writer.backend == "gguf" and not path.is_file():
        raise WrongRequest(f"corpus.writer.model={path}: no such GGUF file")
    if writer.backend != "http" and path.exists():
        files = [path] if path.is_file() else [inner for inner in path.rglob("*") if inner.is_file()]
        identity["model_content"] = content_digest(files)
        del identity["model"]
    return identity


def _readout_identity(cell: CellConfig) -> dict[str, Any]:
    """Returns the identity of a readout, as its kind has it; dropout is part of it where it is not the network's."""
    readout = cell.readout
    if cell.readout_dropout == cell.model.dropout:
        readout = readout.model_copy(update={"dropout": None})
    return kind_of(readout.kind).identity(readout)


def _setting(corpus: CorpusConfig) -> str:
    """Returns the short name of a corpus setting, such as `multi5.permute1.fullname-n500`."""
    parts = [] if corpus.kind == "bioS" else ["bior.rules" if corpus.writer.backend == "rules" else "bior"]
    parts += [f"couple{corpus.couple}" if corpus.couple else f"multi{corpus.multi}" if corpus.multi > 1 else "single"]
    parts += [f"permute{corpus.permute}"] if corpus.permute else []
    parts += ["fullname"] if corpus.fullname else []
    parts += [f"cel{corpus.celebrity_fraction:g}"] if corpus.celebrity_fraction else []
    parts += ["text"] if corpus.background is not None else []
    return f"{'.'.join(parts)}-n{corpus.people}"
