from typing import Any

import pytest
from pydantic import ValidationError

from ktrain.config import (
    ATTRIBUTES,
    AugmentationConfig,
    CellConfig,
    CorpusConfig,
    FrozenConfig,
    ModelConfig,
    PoolsConfig,
    ReadoutConfig,
    RuntimeConfig,
    TrainConfig,
)

EVERY: tuple[type[FrozenConfig], ...] = (
    PoolsConfig,
    AugmentationConfig,
    CorpusConfig,
    ModelConfig,
    TrainConfig,
    ReadoutConfig,
    CellConfig,
    RuntimeConfig,
)


def test_attributes_stand_in_the_order_of_a_biography() -> None:
    assert ATTRIBUTES == ("birth_date", "birth_city", "university", "major", "company", "company_city")


def test_defaults_are_the_numbers_of_the_paper() -> None:
    cell = CellConfig()
    assert (cell.corpus.people, cell.corpus.tokenizer, cell.corpus.question_share) == (100_000, "gpt2", 0.5)
    assert tuple(cell.corpus.pools.model_dump().values()) == (400, 400, 1000, 200, 200, 300, 100, 263)
    train = cell.train
    assert (train.steps, train.batch, train.context, train.warmup) == (80_000, 96, 512, 1000)
    assert train.windows == "cut"
    assert (train.learning_rate, train.final_learning_rate, train.weight_decay, train.epsilon) == (1e-3, 0.1, 0.1, 1e-6)
    ask = cell.readout
    assert (ask.steps, ask.batch, ask.learning_rate, ask.weight_decay, ask.epsilon) == (50_000, 48, 3e-4, 0.01, 1e-6)
    assert (ask.rank_qv, ask.rank_embedding, ask.recall_gate) == (8, 128, 0.99)


@pytest.mark.parametrize("settings", EVERY)
def test_an_unknown_field_is_refused_by_name(settings: type[FrozenConfig]) -> None:
    with pytest.raises(ValidationError, match="learningrate"):
        settings(**{"learningrate": 1})


@pytest.mark.parametrize("settings", EVERY)
def test_nothing_changes_after_construction(settings: type[FrozenConfig]) -> None:
    made = settings()
    for field in type(made).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(made, field, getattr(made, field))


@pytest.mark.parametrize("settings", EVERY)
def test_json_gives_the_same_settings_back(settings: type[FrozenConfig]) -> None:
    made = settings()
    assert settings.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (CorpusConfig, "people"),
        (CorpusConfig, "question_share"),
        (TrainConfig, "zero"),
        (TrainConfig, "clip"),
        (CellConfig, "seed"),
        (ModelConfig, "dropout"),
    ],
)
@pytest.mark.parametrize("truth", [True, False])
def test_truth_is_not_taken_for_a_number(settings: type[FrozenConfig], field: str, truth: bool) -> None:
    with pytest.raises(ValidationError, match=rf"{field}\n.*must be a number"):
        settings(**{field: truth})
    assert CorpusConfig(fullname=truth).fullname is truth


@pytest.mark.parametrize(
    ("settings", "field", "value"),
    [
        (CorpusConfig, "people", 3),
        (CorpusConfig, "multi", 0),
        (CorpusConfig, "permute", -1),
        (CorpusConfig, "kind", "bioT"),
        (CorpusConfig, "couple", -1),
        (CorpusConfig, "celebrity_fraction", 1.0),
        (CorpusConfig, "celebrity_fraction", -0.1),
        (CorpusConfig, "background_share", 0.0),
        (CorpusConfig, "background_share", 1.0),
        (AugmentationConfig, "multi", 0),
        (AugmentationConfig, "permute", -1),
        (ModelConfig, "family", "bert"),
        (ReadoutConfig, "people", "everyone"),
        (CorpusConfig, "question_share", 1.0),
        (CorpusConfig, "question_share", -0.1),
        (CorpusConfig, "validation_share", 1.0),
        (CorpusConfig, "validation_share", -0.1),
        (PoolsConfig, "birth_years", 201),
        (PoolsConfig, "majors", 0),
        (ModelConfig, "size", "7b"),
        (ModelConfig, "dropout", 1.0),
        (ModelConfig, "layers", 0),
        (ModelConfig, "width", 4),
        (TrainConfig, "context", 15),
        (TrainConfig, "windows", "any"),
        (TrainConfig, "qa_ratio", 1.0),
        (TrainConfig, "learning_rate", 0.0),
        (TrainConfig, "learning_rate", float("inf")),
        (TrainConfig, "weight_decay", float("nan")),
        (TrainConfig, "zero", 4),
        (ReadoutConfig, "beam", 0),
        (ReadoutConfig, "recall_gate", 1.5),
        (CellConfig, "seed", -1),
        (CellConfig, "seed", 2**31),
        (RuntimeConfig, "workers", 0),
    ],
)
def test_a_value_beyond_its_bounds_is_refused_by_field(settings: type[FrozenConfig], field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=rf"^1 validation error for {settings.__name__}\n{field}\n"):
        settings(**{field: value})


@pytest.mark.parametrize("name", ["gpt2", "bpe-300", "bpe-2048", "bpe-65536"])
def test_tokenizers_that_exist(name: str) -> None:
    assert CorpusConfig(tokenizer=name).tokenizer == name


@pytest.mark.parametrize(
    "name", ["GPT2", "gpt2 ", "bpe", "bpe-", "bpe-99", "bpe-299", "bpe-0600", "bpe-65537", "bpe-100000"]
)
def test_tokenizers_that_do_not_exist(name: str) -> None:
    with pytest.raises(ValidationError):
        CorpusConfig(tokenizer=name)


@pytest.mark.parametrize(
    ("multi", "permute", "entries"), [(1, 0, 1), (1, 1, 1), (1, 5, 5), (5, 0, 5), (5, 1, 5), (2, 3, 6)]
)
def test_a_person_has_m_times_p_entries(multi: int, permute: int, entries: int) -> None:
    assert CorpusConfig(multi=multi, permute=permute).entries_per_person == entries


def test_warmup_ends_before_the_steps_do() -> None:
    assert TrainConfig(steps=10, warmup=10).warmup == 10
    with pytest.raises(ValidationError, match="warmup=11: more than steps=10"):
        TrainConfig(steps=10, warmup=11)


def test_questions_must_exist_before_they_are_trained_on() -> None:
    nobody = CorpusConfig(people=9, question_share=0.11)
    mixed = TrainConfig(qa_ratio=0.5)
    with pytest.raises(ValidationError, match="no question to finetune on"):
        CellConfig(corpus=nobody)
    with pytest.raises(ValidationError, match="nobody to train a probe on"):
        CellConfig(corpus=nobody, readout=ReadoutConfig(kind="p_probe"))
    with pytest.raises(ValidationError, match=r"train\.qa_ratio=0\.5: .*no question to mix in"):
        CellConfig(corpus=nobody, train=mixed, readout=ReadoutConfig(kind="mixed"))
    one = CorpusConfig(people=10, question_share=0.11)
    assert CellConfig(corpus=one, train=mixed).readout.kind == "qa_finetune"


def test_somebody_must_be_set_aside_where_a_share_is() -> None:
    with pytest.raises(ValidationError, match=r"validation_share=0\.2: sets nobody of 4 people aside"):
        CorpusConfig(people=8, validation_share=0.2)
    assert CorpusConfig(people=10, validation_share=0.2).validation_people == 1
    assert CorpusConfig(people=10, question_share=0.2, validation_share=0.75).validation_people == 6


def test_a_mixed_readout_needs_mixed_training() -> None:
    with pytest.raises(ValidationError, match=r"readout\.kind=mixed: needs train\.qa_ratio > 0"):
        CellConfig(readout=ReadoutConfig(kind="mixed"))
    assert CellConfig(readout=ReadoutConfig(kind="mixed"), train=TrainConfig(qa_ratio=0.8)).readout.kind == "mixed"


def test_equal_settings_are_one_member_of_a_set() -> None:
    assert len({CellConfig(), CellConfig(seed=0), CellConfig(seed=1)}) == 2


@pytest.mark.parametrize(("given", "kept"), [("128", 128), (0, 0), ("full", "full")])
def test_the_embedding_is_updated_by_rank_or_whole(given: object, kept: object) -> None:
    assert ReadoutConfig.model_validate({"rank_embedding": given}).rank_embedding == kept


@pytest.mark.parametrize("given", [-1, "all", 1.5, True])
def test_no_other_rank_is_taken(given: object) -> None:
    with pytest.raises(ValidationError):
        ReadoutConfig.model_validate({"rank_embedding": given})


def test_adapters_are_not_sharded_and_whole_networks_are() -> None:
    for adapted in ({"kind": "p_probe"}, {"kind": "q_probe"}, {"method": "lora"}):
        with pytest.raises(ValidationError, match="zero=2: adapters are clipped one by one"):
            ReadoutConfig.model_validate({**adapted, "zero": 2})
    assert not ReadoutConfig(method="full", zero=2).adapted and not ReadoutConfig(kind="mixed").adapted


def test_celebrities_are_written_as_the_paper_writes_them() -> None:
    celebrity = CorpusConfig().celebrity
    assert (celebrity.multi, celebrity.permute, celebrity.fullname, celebrity.entries_per_person) == (5, 1, False, 5)
    assert CorpusConfig().celebrities == 0 and CorpusConfig().entries == 100_000
    assert CorpusConfig(couple=2).entries_per_person == 2


@pytest.mark.parametrize("other", [{"multi": 2}, {"permute": 1}])
def test_couples_say_how_many_entries_there_are(other: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="couple=2: sets the number of entries, so it needs multi=1 and"):
        CorpusConfig(couple=2, **other)


def test_a_fraction_without_a_single_celebrity_is_refused() -> None:
    assert CorpusConfig(people=60, celebrity_fraction=0.02).celebrities == 1
    with pytest.raises(ValidationError, match=r"celebrity_fraction=0\.001: adds nobody to 60 people"):
        CorpusConfig(people=60, celebrity_fraction=0.001)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"readout": {"people": "celebrity"}}, "readout.people=celebrity: needs corpus.celebrity_fraction > 0"),
        (
            {"corpus": {"celebrity_fraction": 0.5}, "train": {"qa_ratio": 0.5}, "readout": {"people": "celebrity"}},
            "readout.people=celebrity: train.qa_ratio > 0 already trains on half of the people under test",
        ),
        (
            {"model": {"family": "gbert"}, "readout": {"kind": "p_probe"}},
            "readout.kind=p_probe: model.family=gbert sees the tokens after a place",
        ),
        ({"train": {"mask_share": 0.4}}, "train.mask_share=0.4: is for model.family=gbert, which fills in masks"),
        (
            {"train": {"qa_ratio": 0.5, "masked_answers": 0.5}},
            "train.masked_answers=0.5: is for model.family=gbert, which fills in masks",
        ),
        (
            {"model": {"family": "gbert"}, "train": {"masked_answers": 0.5}},
            "train.masked_answers=0.5: train.qa_ratio=0 leaves no question to mask",
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
        CellConfig.model_validate(sections)
    (error,) = caught.value.errors()
    assert error["msg"] == f"Value error, {said}" and not error["loc"]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_continues_may_be_asked_all_of_it(family: str) -> None:
    for readout in ({"kind": "p_probe"}, {"beam": 4}, {"loss": "all"}):
        CellConfig.model_validate({"model": {"family": family}, "readout": readout})
    for readout in ({"kind": "q_probe"}, {}, {"method": "full"}):
        CellConfig.model_validate({"model": {"family": "gbert"}, "readout": readout})


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"size": "mini", "heads": 3}, "heads=3: does not divide width=128"),
        ({"size": "mini", "width": 130}, "heads=4: does not divide width=130"),
        (
            {"size": "mini", "width": 80},
            "width=80: leaves 20 numbers to each of 4 heads, which must be a multiple of 8",
        ),
        (
            {"family": "llama", "size": "mini", "width": 20},
            "width=20: leaves 5 numbers to each of 4 heads, which must be a multiple of 2",
        ),
    ],
)
def test_heads_that_do_not_fit_are_refused_in_one_line(model: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ModelConfig.model_validate(model)
    (error,) = caught.value.errors()
    assert error["msg"] == f"Value error, {said}"


@pytest.mark.parametrize("family", ["gpt2", "llama", "gbert"])
def test_what_is_set_beside_a_size_takes_the_place_of_a_part_of_it(family: str) -> None:
    model = ModelConfig.model_validate({"family": family, "size": "mini", "width": 64, "layers": 2})
    assert (model.shape.layers, model.shape.heads, model.shape.width, model.name) == (2, 4, 64, "2x64h4")


def test_who_a_readout_learns_from_is_half_of_the_minority_or_all_celebrities() -> None:
    corpus = {"people": 60, "celebrity_fraction": 0.75, "question_share": 0.25}
    assert CellConfig.model_validate({"corpus": corpus}).learned_from == 15
    assert CellConfig.model_validate({"corpus": corpus, "readout": {"people": "celebrity"}}).learned_from == 180
    # Celebrities are enough, where nobody under test may be asked about.
    nobody = corpus | {"question_share": 0.0}
    assert CellConfig.model_validate({"corpus": nobody, "readout": {"people": "celebrity"}}).learned_from == 180
    with pytest.raises(ValidationError, match="no question to finetune on"):
        CellConfig.model_validate({"corpus": nobody})
