import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.measurements.table_rows import setting
from ktrain.config import CellConfig, CorpusConfig
from ktrain.stages import axes
from sweeps.planning.axes import with_axes
from sweeps.recipes.rows import BIOR, BIOS, MINORITY, axes_of, name_of


def test_the_paper_has_sixteen_rows_of_bios_and_six_of_bior() -> None:
    assert len(set(BIOS)) == 16 and len(set(BIOR)) == 6 and len(set(MINORITY)) == 9


@pytest.mark.parametrize("name", [*BIOS, *BIOR, *MINORITY])
def test_a_row_is_made_of_axes(name: str) -> None:
    assert set(axes_of(name)) <= set(axes(CellConfig()))


@pytest.mark.parametrize("name", [*BIOS, *BIOR, *MINORITY, "bioS couple5"])
def test_a_corpus_has_the_name_of_its_row_here_and_in_tables(name: str) -> None:
    cell = with_axes(CellConfig(), axes_of(name))
    assert name_of(cell.corpus) == name == setting(axes(cell))


def test_the_words_of_a_name_mean_what_the_paper_says() -> None:
    plain = {"corpus.permute": 0, "corpus.fullname": False, "corpus.couple": 0}
    assert axes_of("bioS single") == {"corpus.kind": "bioS", "corpus.multi": 1, **plain}
    assert axes_of("bioR multi3") == {"corpus.kind": "bioR", "corpus.multi": 3, **plain}
    assert axes_of("bioS couple5") == {"corpus.kind": "bioS", "corpus.multi": 1, **plain, "corpus.couple": 5}
    shuffled = axes_of("bioS multi2+permute+fullname")
    assert (shuffled["corpus.multi"], shuffled["corpus.permute"], shuffled["corpus.fullname"]) == (2, 1, True)
    assert axes_of("bioS single+permute5")["corpus.permute"] == 5
    assert axes_of("bioR single+wiki")["corpus.background"] == "?"


def test_celebrities_are_written_as_the_rows_kind_is() -> None:
    bios, bior = axes_of("bioS single+permute1+fullname+CEL"), axes_of("bioR single+fullname+CEL")
    assert bios["corpus.celebrity_fraction"] == bior["corpus.celebrity_fraction"] == 0.5
    assert not any(axis.startswith("corpus.celebrity.") for axis in bios)
    assert bior["corpus.celebrity.permute"] == 0 and bior["corpus.celebrity.fullname"] is True
    assert CorpusConfig().celebrity.model_dump() == {"multi": 5, "permute": 1, "fullname": False}


@given(st.sampled_from(["bioS", "bioR"]), st.integers(1, 9), st.integers(0, 9), st.booleans(), st.booleans())
def test_names_and_axes_are_one_to_one(kind: str, multi: int, permute: int, fullname: bool, famous: bool) -> None:
    words = [f"{kind} " + ("single" if multi == 1 else f"multi{multi}")]
    words += [f"permute{permute}"] if permute else []
    words += ["fullname"] if fullname else []
    words += ["CEL"] if famous else []
    found = axes_of("+".join(words))
    told = (found["corpus.kind"], found["corpus.multi"], found["corpus.permute"], found["corpus.fullname"])
    assert told == (kind, multi, permute, fullname)
    assert ("corpus.celebrity_fraction" in found) == famous


@pytest.mark.parametrize(
    "name", ["", "single", "bioS", "bioS  single", "bioS multi", "bioS single+CEL+fullname", "biox"]
)
def test_a_name_that_is_no_row_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no row of the paper"):
        axes_of(name)
