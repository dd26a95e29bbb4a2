"""`ktrain generate`: a language model writes the bioR biographies that a sweep needs, before the sweep runs.

It is not a part of `run`, because it needs other machines (GPUs for inference, or an endpoint) and costs by the token,
and because all cells and sweeps with the same people share its texts.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from ktrain.errors import WrongRequest, nearest
from sweeps.options import EXIT_DONE, EXIT_FAILED, AxisWords, ManyCells, ScaleName, StoreAddress, SweepName, planned

if TYPE_CHECKING:
    from rich.console import Console

    from ktrain.generation.drafts import DraftStats, DraftStore
    from ktrain.generation.generator import GenerationTask
    from ktrain.stages import Stage
    from ktrain.store.base import Store
    from sweeps.generation.progress import GenerationProgress
    from sweeps.planning.plan import Plan

RenamedFields = Annotated[
    list[str],
    Option(
        "--field",
        metavar="FIELD=NAME",
        default_factory=list,
        show_default=False,
        help="The endpoint's own name for a field of the request; may be repeated.",
    ),
]
LeftOutFields = Annotated[
    list[str],
    Option(
        "--without",
        metavar="FIELD",
        default_factory=list,
        show_default=False,
        help="A field of the request that the endpoint does not take; may be repeated.",
    ),
]
LISTED = 5
"""How many people without a biography are named."""


@dataclass(frozen=True)
class GenerationOptions:
    """Operational options, none of which can change the text of an accepted draft, but for fields that are left out:
    then the endpoint samples in its own way, and `runs.jsonl` says so."""

    endpoint: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """The endpoint's own names of fields of a request."""
    without: tuple[str, ...] = ()
    """Fields of a request that the endpoint does not take."""
    concurrency: int = 16
    batch: int = 64
    attempts: int = 20
    models: int = 0
    prices: tuple[float, float] = (0.0, 0.0)
    """Dollars per million tokens read and written."""
    address: str = "local"
    """The address of the Ray at which models that need no endpoint run."""


def generate(
    sweep: SweepName,
    axes: AxisWords,
    fields: RenamedFields,
    without: LeftOutFields,
    scale: ScaleName = "mini",
    store: StoreAddress = "results",
    endpoint: Annotated[
        str, Option("--endpoint", metavar="URL", help="An OpenAI-compatible endpoint, mostly ending in /v1.")
    ] = "",
    concurrency: Annotated[int, Option("--concurrency", help="Requests at once.")] = 16,
    batch: Annotated[int, Option("--batch", help="People of a batch, which is the most that is lost.")] = 64,
    attempts: Annotated[int, Option("--attempts", help="Drafts of a biography, at most.")] = 20,
    models: Annotated[int, Option("--models", help="Models at once; 0 is one for each GPU or core.")] = 0,
    price: Annotated[str, Option("--price", help="Dollars for a million tokens read,written.")] = "0,0",
    many_cells: ManyCells = False,
) -> int:
    """Have a language model write the bioR biographies that a sweep lacks; drafts so far are kept and continued."""
    from ktrain.generation.openai_client import EndpointFailure
    from sweeps.console import Screen
    from sweeps.execution.cluster_address import chosen_address

    for name, value in {"concurrency": concurrency, "batch": batch, "attempts": attempts}.items():
        if value < 1:
            raise WrongRequest(f"{name}={value}: must be at least 1")
    renamed = dict(_renamed(word) for word in fields)
    for name in without:
        _check_field("without", name, name)
    options = GenerationOptions(
        endpoint, renamed, tuple(without), concurrency, batch, attempts, models, prices=_prices(price)
    )
    plan = planned(sweep, axes, scale, store, writable=True, many_cells=many_cells)
    console = Screen(soft_wrap=True, highlight=False)
    missing = missing_texts(plan)
    if not missing:
        console.print("nothing to write: no cell lacks text of a language model")
        return EXIT_DONE
    if not options.endpoint and any(task.writer.backend == "http" for _, task in missing):
        raise WrongRequest("endpoint: corpus.writer.backend=http needs --endpoint ADDRESS")
    if any(task.writer.backend != "http" for _, task in missing):
        options = replace(options, address=chosen_address())
    plan.store.ready(given=store)
    try:
        written = [write_stage(stage, task, plan.store, options, console) for stage, task in missing]
    except EndpointFailure as e:
        console.print(f"{e}; drafts so far are kept, and the same command continues", style="yellow", markup=False)
        return EXIT_FAILED
    return EXIT_DONE if all(written) else EXIT_FAILED


def missing_texts(plan: "Plan") -> list[tuple["Stage", "GenerationTask"]]:
    """The text stages, with their tasks, that cells of a plan need and that are not complete; each once."""
    from ktrain.generation.drafts import generation_tasks
    from sweeps.planning.generation_cost import generation_costs

    tasks = {key: both for cell in plan.cells for key, both in generation_tasks(cell.cell).items()}
    return [tasks[cost.stage] for cost in generation_costs(plan)]


def write_stage(
    stage: "Stage", task: "GenerationTask", store: "Store", options: GenerationOptions, console: "Console"
) -> bool:
    """Writes the missing drafts of one stage and publishes it if everyone has an accepted one.

    Returns whether it is published; otherwise prints who has no biography. Raises `EndpointFailure` if the endpoint is
    down.
    """
    from ktrain.generation.drafts import DraftStore, draft_stats
    from ktrain.generation.openai_client import EndpointFailure
    from sweeps.generation.progress import GenerationProgress

    with store.lease(stage.key):
        draft_store = DraftStore(store.work_dir(stage.key), task)
        before = draft_store.drafts()
        pending = [(person, attempt) for person, attempt in draft_store.pending(before) if attempt < options.attempts]
        blocks = [pending[i : i + options.batch] for i in range(0, len(pending), options.batch)]
        progress = GenerationProgress(
            stage.key, task.people, draft_stats(before), options.prices, console, blocks=len(blocks)
        )
        write_blocks = _write_by_endpoint if task.writer.backend == "http" else _write_locally
        try:
            with progress:
                for stats in write_blocks(draft_store, blocks, options, progress) if blocks else ():
                    progress.add(stats)
        except EndpointFailure:
            progress.summary(draft_stats(draft_store.drafts()))
            raise
        finally:
            draft_store.log_run(progress.run | {"renamed": dict(options.renamed), "without": list(options.without)})
            store.flush_uploads()
        drafts = draft_store.drafts()
        progress.summary(draft_stats(drafts))
        lacking = [person for person, _ in draft_store.pending(drafts)]
        if not lacking:
            draft_store.publish(store, stage)
    if lacking:
        console.print(_lacking_line(task, lacking, options.attempts), style="yellow", markup=False)
    return not lacking


def _lacking_line(task: "GenerationTask", lacking: Sequence[int], attempts: int) -> str:
    """Names the first people without an accepted biography, and says how to continue."""
    names = [facts.name for facts in task.facts()]
    listed = ", ".join(f"{names[p]} (person {p})" for p in lacking[:LISTED]) + (", ..." if lacking[LISTED:] else "")
    return (
        f"{len(lacking)} of {len(names)} people have no accepted biography after {attempts} attempts: {listed}; "
        "a higher --attempts goes on from here"
    )


def _write_by_endpoint(
    draft_store: "DraftStore", blocks: Sequence[Any], options: GenerationOptions, progress: "GenerationProgress"
) -> Iterator["DraftStats"]:
    """Writes block after block by an endpoint, each block with many concurrent requests."""
    from ktrain.generation.drafts import draft_stats
    from ktrain.generation.generator import DraftGenerator
    from ktrain.generation.openai_client import KEY, OpenAiClient

    model = OpenAiClient(
        options.endpoint,
        draft_store.task.writer,
        key=os.environ.get(KEY, ""),
        renamed=options.renamed,
        without=options.without,
        concurrency=options.concurrency,
    )
    generator = DraftGenerator(draft_store.task, model)
    progress.troubles = model.troubles
    for block in blocks:
        drafts = generator.write(block, options.attempts)
        draft_store.append(drafts)
        yield draft_stats(drafts)


def _write_locally(
    draft_store: "DraftStore", blocks: Sequence[Any], options: GenerationOptions, progress: "GenerationProgress"
) -> Iterator["DraftStats"]:
    """Writes blocks by models on this machine or a cluster, through Ray Data: one model per GPU or core."""
    from sweeps.generation.ray_workers import generate_blocks, ray_cluster

    with ray_cluster(options.address) as resources:
        yield from generate_blocks(draft_store, blocks, options.attempts, options.models, resources)


def _renamed(word: str) -> tuple[str, str]:
    """Parses `FIELD=NAME`. Raises `WrongRequest`."""
    ours, _, theirs = word.partition("=")
    _check_field("field", word, ours)
    if not theirs.isidentifier():
        raise WrongRequest(f"field={word}: must be FIELD=NAME, such as max_tokens=max_completion_tokens")
    return ours, theirs


def _check_field(option: str, value: str, name: str) -> None:
    """Raises `WrongRequest` unless a request has a field of this name that may be left out."""
    from ktrain.generation.openai_client import FIELDS

    if name not in FIELDS:
        raise WrongRequest(f"{option}={value}: the fields are {', '.join(FIELDS)}{nearest(name, FIELDS)}")


def _prices(text: str) -> tuple[float, float]:
    """Parses `read,written`. Raises `WrongRequest` unless these are two numbers that are not negative."""
    try:
        read, written = (float(price) for price in text.split(","))
        if read < 0 or written < 0:
            raise ValueError
    except ValueError:
        raise WrongRequest(f"price={text}: must be two numbers, dollars for a million tokens read,written") from None
    return read, written
