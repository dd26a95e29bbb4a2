"""The tables of README.md and docs/miniature.md, made from the results of a store."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from analysis.claims import judge
from analysis.claims.verdict import Outcome
from analysis.measurements import curves, names
from analysis.measurements.cells import ReplicateGroup, Results, group_replicates
from analysis.measurements.table_rows import setting
from analysis.presentation.number_format import percent, ranged

DEMO_PEOPLE = 300
ATTRIBUTES = [attribute.replace("_", " ") for attribute in names.ATTRIBUTES]


class Missing(LookupError):
    """The store lacks finished cells that a table shows."""


@dataclass(frozen=True)
class Numbers:
    """Finished cells of one sweep, grouped over seeds."""

    results: Results
    uri: str = ""

    def group(self, row: str, kind: str, **axes: object) -> ReplicateGroup:
        """Returns the cells of the setting `row` (the paper's name), read out by `kind`, with these `axes`.

        In the names of axes, `__` stands for a dot. Raises `Missing` unless exactly one group has finished cells.
        """
        wanted: dict[str, object] = {"readout.kind": kind, "model.family": "gpt2"}
        wanted |= {name.replace("__", "."): value for name, value in axes.items()}
        chosen = [
            group
            for group in group_replicates(self.results)
            if group.done and setting(group.params) == row and wanted.items() <= group.params.items()
        ]
        if len(chosen) != 1:
            raise Missing(f"{len(chosen)} finished settings are {row}, {wanted}")
        return chosen[0]


def finetuned(numbers: Numbers, row: str, people: int, **axes: object) -> ReplicateGroup:
    """Returns full QA finetuning of a setting with that many people."""
    whole: dict[str, object] = {"readout__method": "full", "corpus__people": people}
    return numbers.group(row, "qa_finetune", **whole | axes)


def shown(group: ReplicateGroup, metric: str) -> str:
    """Returns a metric in percent with its interval."""
    return ranged(group.metrics[metric], group.interval.get(metric))


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(row)} |\n".replace("|  |", "| |") for row in rows)


def seeds(group: ReplicateGroup) -> str:
    """Returns `seed 1`, or `mean of seeds 0, 1, 2`."""
    named = ", ".join(map(str, group.seeds))
    return f"mean of seeds {named}" if len(group.seeds) > 1 else f"seed {named}"


def demo(numbers: Numbers) -> str:
    """README: the demo's contrast, a column for each attribute."""
    single, augmented = (finetuned(numbers, row, DEMO_PEOPLE) for row in ("bioS single", "bioS multi5+permute"))

    def line(label: str, group: ReplicateGroup, prefix: str, mean: str) -> list[str]:
        return [label, mean, *(percent(group.metrics[f"{prefix}/{attribute}"]) for attribute in names.ATTRIBUTES)]

    held_out = "qa/exact_match/test"
    return table(
        [f"{seeds(single)}; exact match in %", "mean", *ATTRIBUTES],
        [
            line(
                "always the most common value", single, "baseline/test", percent(single.metrics["baseline/test/mean"])
            ),
            line("one wording (`single`)", single, held_out, _bold(single)),
            line("five wordings, any order (`multi5+permute`)", augmented, held_out, _bold(augmented)),
        ],
    )


def _bold(group: ReplicateGroup) -> str:
    metric = "qa/exact_match/test/mean"
    low, high = group.interval[metric]
    return f"**{percent(group.metrics[metric])}** [{percent(low)}, {percent(high)}]"


def demo_by_seed(numbers: Numbers) -> str:
    """docs/miniature.md: the demo, a row for each seed."""
    lines = []
    for row in ("bioS single", "bioS multi5+permute"):
        keys = finetuned(numbers, row, DEMO_PEOPLE).counted
        for cell in sorted((c for c in numbers.results.cells if c.key in keys), key=lambda c: str(c.axes["seed"])):
            held_out = [percent(cell.metrics[f"qa/exact_match/test/{column}"]) for column in names.COLUMNS]
            trained, recalled = cell.metrics["qa/exact_match/train/mean"], cell.metrics[names.RECALL]
            baseline = percent(cell.metrics["baseline/test/mean"])
            name = row.removeprefix("bioS ")
            lines.append([name, str(cell.axes["seed"]), *held_out, baseline, percent(trained), percent(recalled)])
    return table(["setting", "seed", "held-out", *ATTRIBUTES, "baseline", "asked", "recall"], lines)


MANY = (
    "bioS single",
    "bioS single+permute1",
    "bioS single+fullname",
    "bioS single+permute5",
    "bioS multi5",
    "bioS multi5+permute",
)


def wordings(numbers: Numbers) -> str:
    """docs/miniature.md: the settings of 1,000 people, answers beside Q-probes."""
    answer, read = "qa/exact_match/test/mean", names.q_probe("first", "mean")
    first = finetuned(numbers, MANY[0], 1000)
    probed = [numbers.group(row, "q_probe", corpus__people=1000) for row in MANY]
    chance = probed[0].metrics[names.majority("q_probe", "first", "mean")]
    lines = [["majority baseline", percent(first.metrics["baseline/test/mean"]), percent(chance), ""]]
    for row, probe in zip(MANY, probed, strict=True):
        group = finetuned(numbers, row, 1000)
        recalled = percent(group.metrics[names.RECALL])
        lines.append([row.removeprefix("bioS "), shown(group, answer), shown(probe, read), recalled])
    for rank in (8, 16):
        adapted = numbers.group("bioS single", "qa_finetune", readout__method="lora", readout__rank_qv=rank)
        lines.append(
            [f"single, adapters of rank {rank}", shown(adapted, answer), "", percent(adapted.metrics[names.RECALL])]
        )
    mixed = numbers.group("bioS single", "mixed", corpus__people=1000)
    lines.append(
        [
            "single, mixed training",
            shown(mixed, "mixed/exact_match/test/mean"),
            "",
            percent(mixed.metrics[names.RECALL]),
        ]
    )
    return table([f"{seeds(first)}; 1,000 people", "answers", "Q-probe, first token", "recall"], lines)


def celebrities(numbers: Numbers) -> str:
    """docs/miniature.md: celebrities beside the same texts without them."""
    answer = "qa/exact_match/test/mean"
    first = finetuned(numbers, "bioS single", 500)
    lines = [["majority baseline", percent(first.metrics["baseline/test/mean"]), ""]]
    for row in ("bioS single", "bioS single+permute1"):
        for name in (row, f"{row}+CEL"):
            group = finetuned(numbers, name, 500)
            lines.append([name.removeprefix("bioS "), shown(group, answer), percent(group.metrics[names.RECALL])])
    return table([f"{seeds(first)}; 500 people", "answers about people not asked about", "recall"], lines)


def probes(numbers: Numbers) -> str:
    """docs/miniature.md: first tokens that probes read, a column for each attribute."""
    rows = "bioS single", "bioS multi5+permute"
    p = {row: numbers.group(row, "p_probe") for row in rows}
    q = {row: numbers.group(row, "q_probe", corpus__people=1000) for row in rows}
    columns = names.COLUMNS

    def line(label: str, group: ReplicateGroup, metric: Callable[[str], str]) -> list[str]:
        return [label, *(percent(group.metrics.get(metric(column))) for column in columns)]

    lines = [line("majority baseline", q[rows[0]], partial(names.majority, "q_probe", "first"))]
    for row in rows:
        lines.append(line(f"Q-probe, {row.removeprefix('bioS ')}", q[row], partial(names.q_probe, "first")))
    for position, place in ((0, "at position 0"), ("own", "right before the attribute")):
        for row in rows:
            label = f"P-probe {place}, {row.removeprefix('bioS ')}"
            lines.append(line(label, p[row], lambda column, at=position: names.p_probe("first", at, column)))  # type: ignore[misc]
    header = ["birth month" if name == "birth date" else name for name in ATTRIBUTES]
    return table([f"{seeds(p[rows[0]])}; first token, in %", "mean of five", *header], lines)


def _accuracy(numbers: Numbers, row: str, kind: str = "qa_finetune", **axes: object) -> str:
    metric = ("mixed" if kind == "mixed" else "qa") + "/exact_match/test/mean"
    if kind == "qa_finetune":
        axes = {"readout__method": "full", "corpus__people": 1000} | axes
    return percent(numbers.group(row, kind, **axes).metrics[metric])


def _claim_numbers(numbers: Numbers) -> Mapping[str, Callable[[], str]]:
    """What README says of each claim besides the verdict, by the claim's name."""
    full, mean = partial(_accuracy, numbers), "mean"
    baseline = percent(finetuned(numbers, "bioS single", 1000).metrics["baseline/test/mean"])

    def lora() -> str:
        groups = [
            numbers.group("bioS single", "qa_finetune", readout__method="lora", readout__rank_qv=rank)
            for rank in (8, 16)
        ]
        return percent(max(group.metrics["qa/exact_match/test/mean"] for group in groups))

    def p(row: str, position: int | str) -> str:
        return percent(numbers.group(row, "p_probe").metrics[names.p_probe("first", position, mean)])  # type: ignore[arg-type]

    def q(row: str) -> str:
        return percent(numbers.group(row, "q_probe", corpus__people=1000).metrics[names.q_probe("first", mean)])

    def celebrity(row: str) -> str:
        return f"{full(f'{row}+CEL', corpus__people=500)} % with, {full(row, corpus__people=500)} % without"

    def filled_in() -> str:
        fewest: dict[str, Any] = {"corpus__people": 250}
        gbert = fewest | {"model__family": "gbert"}
        dates = numbers.group(single, "mixed", **gbert).metrics["mixed/exact_match/test/birth_date"]
        return (
            f"finetuned {full(best, **gbert)} %, GPT-2 {full(best, **fewest)} %; "
            f"in mixed training {full(single, 'mixed', **gbert)} %, birth dates {percent(dates)} %"
        )

    single, best = "bioS single", "bioS multi5+permute"
    return {
        "finetuning_fails": lambda: f"{full(single)} % (full), {lora()} % (adapters), baseline {baseline} %",
        "mixed_training_extracts": lambda: (
            f"{full(single, 'mixed', corpus__people=1000)} %, finetuned {full(single)} %"
        ),
        "rewording_and_shuffling_extract": lambda: (
            f"{full('bioS multi5')} %, {full('bioS single+permute5')} % and together {full(best)} %"
        ),
        "fullname_helps": lambda: f"{full('bioS single+fullname')} %, with pronouns {full(single)} %",
        "one_shuffle_fails": lambda: f"{full('bioS single+permute1')} %, baseline {baseline} %",
        "where_it_is_stored": lambda: (
            f"one wording {p(single, 'own')} % before the attribute, {p(single, 0)} % at the first position; "
            f"several {p(best, 0)} % there"
        ),
        "bound_to_the_name": lambda: f"Q-probes {q(single)} % and {q(best)} %",
        "celebrities_help": lambda: (
            f"random orders {celebrity('bioS single+permute1')}; fixed order {celebrity(single)}"
        ),
        "bidirectional_models_fail": filled_in,
    }


def _effect(outcome: Outcome) -> str:
    """A correlation, a lead in training, or a difference in points, with its interval."""
    effect = outcome.effect
    assert effect
    if outcome.part.correlation:
        return f"{effect.value:.2f} [{effect.low:.2f}, {effect.high:.2f}]"
    number = ranged(effect.value, (effect.low, effect.high))
    return f"{number} % of the steps earlier" if outcome.part.lead else f"{number} points"


def claims(numbers: Numbers) -> str:
    """README: each conclusion of the paper with its verdict."""
    verdicts = judge.judge(numbers.results, curves.read_curves(numbers.uri, numbers.results))
    if not all(verdict.tested for verdict in verdicts):
        raise Missing("not every part of every claim has cells")
    seed = seeds(finetuned(numbers, "bioS single", 1000))
    with_numbers = _claim_numbers(numbers)
    lines = []
    for verdict in verdicts:
        text: str = verdict.verdict
        if verdict.claim.name in with_numbers:
            text += f": {with_numbers[verdict.claim.name]()}"
        elif all(part.effect for part in verdict.parts):
            text += f": {', '.join(map(_effect, verdict.parts))}"
        else:
            text += ": not all of its cells are done"
        lines.append([verdict.claim.says, text])
    return table(["conclusion of the paper", f"in the miniature, {seed}"], lines)


TABLES: Mapping[str, Callable[[Numbers], str]] = {
    "demo": demo,
    "demo-by-seed": demo_by_seed,
    "claims": claims,
    "wordings": wordings,
    "celebrities": celebrities,
    "probes": probes,
}
"""What writes each table."""
