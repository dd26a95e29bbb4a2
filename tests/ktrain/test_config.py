from typing import Any

import pytest
from pydantic import ValidationError

from ktrain.config import ATTRIBUTES, Augmentation, Cell, Corpus, Model, PoolSizes, Readout, Runtime, Settings, Train

EVERY: tuple[type[Settings], ...] = (PoolSizes, Augmentation, Corpus, Model, Train, Readout, Cell, Runtime)


def test_attributes_stand_in_the_order_of_a_biography() -> None:
    assert ATTRIBUTES == ("birth_date", "birth_city", "university", "major", "company", "company_city")


def test_defaults_are_the_numbers_of_the_paper() -> None:
    cell = Cell()
    assert (cell.corpus.people, cell.corpus.tokenizer, cell.corpus.question_share) == (100_000, "gpt2", 0.5)
    assert tuple(cell.corpus.pools.model_dump().values()) == (400, 400, 1000, 200, 200, 300, 100, 263)
    train = cell.train
    assert (train.steps, train.batch, train.context, train.warmup) == (80_000, 96, 512, 1000)
    assert (train.learning_rate, train.final_learning_rate, train.weight_decay, train.epsilon) == (1e-3, 0.1, 0.1, 1e-6)
    ask = cell.readout
    assert (ask.steps, ask.batch, ask.learning_rate, ask.weight_decay, ask.epsilon) == (50_000, 48, 3e-4, 0.01, 1e-6)
    assert (ask.rank_qv, ask.rank_embedding, ask.recall_gate) == (8, 128, 0.99)


@pytest.mark.parametrize("settings", EVERY)
def test_an_unknown_field_is_refused_by_name(settings: type[Settings]) -> None:
    with pytest.raises(ValidationError, match="learningrate"):
        settings(**{"learningrate": 1})


@pytest.mark.parametrize("settings", EVERY)
def test_nothing_changes_after_construction(settings: type[Settings]) -> None:
    made = settings()
    for field in type(made).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(made, field, getattr(made, field))


@pytest.mark.parametrize("settings", EVERY)
def test_json_gives_the_same_settings_back(settings: type[Settings]) -> None:
    made = settings()
    assert settings.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (Corpus, "people"),
        (Corpus, "question_share"),
        (Train, "zero"),
        (Train, "clip"),
        (Cell, "seed"),
        (Model, "dropout"),
    ],
)
@pytest.mark.parametrize("truth", [True, False])
def test_truth_is_not_taken_for_a_number(settings: type[Settings], field: str, truth: bool) -> None:
    with pytest.raises(ValidationError, match=rf"{field}\n.*a number is wanted"):
        settings(**{field: truth})
    assert Corpus(fullname=truth).fullname is truth


@pytest.mark.parametrize(
    ("settings", "field", "value"),
    [
        (Corpus, "people", 3),
        (Corpus, "multi", 0),
        (Corpus, "permute", -1),
        (Corpus, "kind", "bioT"),
        (Corpus, "couple", -1),
        (Corpus, "celebrity_fraction", 1.0),
        (Corpus, "celebrity_fraction", -0.1),
        (Corpus, "background_share", 0.0),
        (Corpus, "background_share", 1.0),
        (Augmentation, "multi", 0),
        (Augmentation, "permute", -1),
        (Model, "family", "bert"),
        (Readout, "people", "everyone"),
        (Corpus, "question_share", 1.0),
        (Corpus, "question_share", -0.1),
        (PoolSizes, "birth_years", 201),
        (PoolSizes, "majors", 0),
        (Model, "size", "7b"),
        (Model, "dropout", 1.0),
        (Train, "context", 15),
        (Train, "qa_ratio", 1.0),
        (Train, "learning_rate", 0.0),
        (Train, "learning_rate", float("inf")),
        (Train, "weight_decay", float("nan")),
        (Train, "zero", 4),
        (Readout, "beam", 0),
        (Readout, "recall_gate", 1.5),
        (Cell, "seed", -1),
        (Cell, "seed", 2**31),
        (Runtime, "workers", 0),
    ],
)
def test_a_value_beyond_its_bounds_is_refused_by_field(settings: type[Settings], field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=rf"^1 validation error for {settings.__name__}\n{field}\n"):
        settings(**{field: value})


@pytest.mark.parametrize("name", ["gpt2", "bpe-300", "bpe-2048", "bpe-65536"])
def test_tokenizers_that_exist(name: str) -> None:
    assert Corpus(tokenizer=name).tokenizer == name


@pytest.mark.parametrize(
    "name", ["GPT2", "gpt2 ", "bpe", "bpe-", "bpe-99", "bpe-299", "bpe-0600", "bpe-65537", "bpe-100000"]
)
def test_tokenizers_that_do_not_exist(name: str) -> None:
    with pytest.raises(ValidationError):
        Corpus(tokenizer=name)


@pytest.mark.parametrize(
    ("multi", "permute", "entries"), [(1, 0, 1), (1, 1, 1), (1, 5, 5), (5, 0, 5), (5, 1, 5), (2, 3, 6)]
)
def test_a_person_has_m_times_p_entries(multi: int, permute: int, entries: int) -> None:
    assert Corpus(multi=multi, permute=permute).entries_per_person == entries


def test_warmup_ends_before_the_steps_do() -> None:
    assert Train(steps=10, warmup=10).warmup == 10
    with pytest.raises(ValidationError, match="warmup=11: more than steps=10"):
        Train(steps=10, warmup=11)


def test_questions_must_exist_before_they_are_trained_on() -> None:
    nobody = Corpus(people=9, question_share=0.11)
    mixed = Train(qa_ratio=0.5)
    with pytest.raises(ValidationError, match="no question to finetune on"):
        Cell(corpus=nobody)
    with pytest.raises(ValidationError, match="nobody to train a probe on"):
        Cell(corpus=nobody, readout=Readout(kind="p_probe"))
    with pytest.raises(ValidationError, match=r"train\.qa_ratio=0\.5: .*no question to mix in"):
        Cell(corpus=nobody, train=mixed, readout=Readout(kind="mixed"))
    one = Corpus(people=10, question_share=0.11)
    assert Cell(corpus=one, train=mixed).readout.kind == "qa_finetune"


def test_a_mixed_readout_needs_mixed_training() -> None:
    with pytest.raises(ValidationError, match=r"readout\.kind=mixed: needs train\.qa_ratio > 0"):
        Cell(readout=Readout(kind="mixed"))
    assert Cell(readout=Readout(kind="mixed"), train=Train(qa_ratio=0.8)).readout.kind == "mixed"


def test_equal_settings_are_one_member_of_a_set() -> None:
    assert len({Cell(), Cell(seed=0), Cell(seed=1)}) == 2


@pytest.mark.parametrize(("given", "kept"), [("128", 128), (0, 0), ("full", "full")])
def test_the_embedding_is_updated_by_rank_or_whole(given: object, kept: object) -> None:
    assert Readout.model_validate({"rank_embedding": given}).rank_embedding == kept


@pytest.mark.parametrize("given", [-1, "all", 1.5, True])
def test_no_other_rank_is_taken(given: object) -> None:
    with pytest.raises(ValidationError):
        Readout.model_validate({"rank_embedding": given})


def test_adapters_are_not_sharded_and_whole_networks_are() -> None:
    for adapted in ({"kind": "p_probe"}, {"kind": "q_probe"}, {"method": "lora"}):
        with pytest.raises(ValidationError, match="zero=2: adapters are clipped one by one"):
            Readout.model_validate({**adapted, "zero": 2})
    assert not Readout(method="full", zero=2).adapted and not Readout(kind="mixed").adapted


def test_celebrities_are_written_as_the_paper_writes_them() -> None:
    celebrity = Corpus().celebrity
    assert (celebrity.multi, celebrity.permute, celebrity.fullname, celebrity.entries_per_person) == (5, 1, False, 5)
    assert Corpus().celebrities == 0 and Corpus().entries == 100_000
    assert Corpus(couple=2).entries_per_person == 2


@pytest.mark.parametrize("other", [{"multi": 2}, {"permute": 1}])
def test_couples_say_how_many_entries_there_are(other: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="couple=2: says how many entries there are, so multi=1 and permute=0"):
        Corpus(couple=2, **other)


def test_a_fraction_without_a_single_celebrity_is_refused() -> None:
    assert Corpus(people=60, celebrity_fraction=0.02).celebrities == 1
    with pytest.raises(ValidationError, match=r"celebrity_fraction=0\.001: of 60 people is not one"):
        Corpus(people=60, celebrity_fraction=0.001)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"readout": {"people": "celebrity"}}, "readout.people=celebrity: needs corpus.celebrity_fraction > 0"),
        (
            {"corpus": {"celebrity_fraction": 0.5}, "train": {"qa_ratio": 0.5}, "readout": {"people": "celebrity"}},
            "readout.people=celebrity: train.qa_ratio > 0 asks half of the people under test already",
        ),
        (
            {"model": {"family": "gbert"}, "readout": {"kind": "p_probe"}},
            "readout.kind=p_probe: model.family=gbert sees what stands after a place",
        ),
        (
            {"model": {"family": "gbert"}, "readout": {"beam": 4}},
            "readout.beam=4: model.family=gbert fills in, it does not generate",
        ),
        (
            {"model": {"family": "gbert"}, "readout": {"loss": "all"}},
            "readout.loss=all: model.family=gbert learns the answers that it fills in",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Cell.model_validate(sections)
    (error,) = caught.value.errors()
    assert error["msg"] == f"Value error, {said}" and not error["loc"]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_continues_may_be_asked_all_of_it(family: str) -> None:
    for readout in ({"kind": "p_probe"}, {"beam": 4}, {"loss": "all"}):
        Cell.model_validate({"model": {"family": family}, "readout": readout})
    for readout in ({"kind": "q_probe"}, {}, {"method": "full"}):
        Cell.model_validate({"model": {"family": "gbert"}, "readout": readout})


def test_who_a_readout_learns_from_is_half_of_the_minority_or_all_celebrities() -> None:
    corpus = {"people": 60, "celebrity_fraction": 0.75, "question_share": 0.25}
    assert Cell.model_validate({"corpus": corpus}).learned_from == 15
    assert Cell.model_validate({"corpus": corpus, "readout": {"people": "celebrity"}}).learned_from == 180
    # Celebrities are enough, where nobody under test may be asked about.
    nobody = corpus | {"question_share": 0.0}
    assert Cell.model_validate({"corpus": nobody, "readout": {"people": "celebrity"}}).learned_from == 180
    with pytest.raises(ValidationError, match="no question to finetune on"):
        Cell.model_validate({"corpus": nobody})
