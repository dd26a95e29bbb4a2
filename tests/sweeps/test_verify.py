import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ktrain.fingerprint import sha256
from ktrain.store import manifest
from ktrain.store.base import Store
from sweeps import cli
from sweeps.planning.plan import Plan


@pytest.fixture
def done(planned: Callable[..., Plan], publish: Callable[..., None]) -> Plan:
    for stage in planned().cells[0].stages:
        publish(stage)
    return planned()


def verify(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(["verify", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_an_intact_store_is_read_and_left_as_it_is(
    done: Plan, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}
    assert verify(capsys, "--store", store.address) == (0, "3 stages read, none of them damaged\n", "")
    assert before == {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}


def test_a_byte_that_decayed_is_noticed_and_the_stage_moved_aside(
    done: Plan, store: Store, planned: Callable[..., Plan], capsys: pytest.CaptureFixture[str]
) -> None:
    key = done.cells[0].stages.pretrain.key
    path = store.root / "stages" / key / "curve.json"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"3.0", b"3.1"))
    # As if the disk had changed it: no program did, so no time says so.
    os.utime(path.parent / "manifest.json", ns=(4_000_000_000_000_000_000,) * 2)
    assert planned().cells[0].state == "done"
    code, out, _ = verify(capsys, "--store", store.address)
    assert code == 1 and out.startswith("3 stages read, 1 of them damaged\n") and "`ktrain run`" in out
    assert (store.root / "damaged" / f"{key}-1" / "curve.json").is_file() and not store.exists(key)
    assert planned().cells[0].state.startswith(f"damaged: {key}: moved to ") and len(planned().trials()) == 2
    assert verify(capsys, "--store", store.address)[:2] == (0, "2 stages read, none of them damaged\n")


def test_numbers_that_contradict_each_other_are_damage(
    done: Plan, store: Store, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    key = done.cells[0].stages.readout.key
    folder = store.root / "stages" / key
    (folder / "metrics.json").write_text('{"qa/exact_match/test/mean": 0.99, "qa/exact_match/train/mean": 0.75}')
    whole = store.manifest(key)
    size = (folder / "metrics.json").stat().st_size
    whole["files"]["metrics.json"] = {"size": size, "sha256": sha256(folder / "metrics.json")}
    (folder / "manifest.json").write_text(manifest.text(manifest.with_checksum(whole)))
    assert verify(capsys, "--store", store.address)[0] == 1 and not store.exists(key)
    assert "counts.json has an interval of qa/exact_match/test/mean from 0.65 to 0.85" in caplog.text


def test_a_sweep_verifies_its_own_stages_alone(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (store.root / "stages" / "other-00000000").mkdir()
    code, out, err = verify(capsys, "demo", "--store", store.address)
    assert (code, out) == (2, "") and err.endswith("there is no stage of demo to read\n")
    assert verify(capsys, "--store", store.address)[0] == 1


@pytest.mark.parametrize(("words", "named"), [(("dmo",), "dmo"), (("demo", "corpus.mutli=2"), "corpus.mutli")])
def test_a_wrong_request_is_one_line(
    store: Store, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], named: str
) -> None:
    code, out, err = verify(capsys, *words, "--store", store.address)
    assert (code, out) == (2, "") and named in err and len(err.splitlines()) == 1


def test_a_store_without_stages_is_no_intact_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as one whose name was mistyped."""
    code, out, err = verify(capsys, "--store", str(tmp_path / "none"))
    assert (code, out) == (2, "") and "none: there is no stage to read" in err and len(err.splitlines()) == 1
    assert not (tmp_path / "none").exists()
