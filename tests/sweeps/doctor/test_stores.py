import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ktrain.system.filesystems import Mount
from sweeps.doctor import stores
from sweeps.doctor.finding import FAIL, OK, SKIPPED, WARN, CheckContext
from sweeps.doctor.stores import Ask


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], Ask]:
    """Nodes in this process, each of which sees its own folder under the store's address."""

    def made(folders: Mapping[str, str]) -> Ask:
        def ask(method: str, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
            return {
                node: stores._tried(stores.METHODS[method], (folders[node], *rest))
                for node, (_, *rest) in arguments.items()
            }

        return ask

    monkeypatch.setattr(stores, "VISIBLE_WITHIN", 0.1)
    return made


def left(folder: Path) -> list[str]:
    """What lies in a store besides its own folders and locks."""
    return [p.name for p in folder.rglob("*") if p.is_file() and p.name != ".lock"]


def test_a_store_takes_gives_and_locks_and_nothing_is_left_in_it(setting: CheckContext) -> None:
    (found,) = stores.store(setting)
    assert found.result == OK and setting.store in found.detail
    assert left(Path(setting.store)) == []


@pytest.mark.parametrize("place", ["/proc/results", "{tmp}/file/results", "gopher://bucket/results"])
def test_a_store_that_cannot_be_written(setting: CheckContext, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (found,) = stores.store(replace(setting, store=place.format(tmp=tmp_path)))
    assert found.result == FAIL and found.detail.startswith("store=") and "KTRAIN_STORE" in found.fix


def test_a_disk_whose_locks_do_nothing(setting: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_lease", lambda *_, **__: contextlib.nullcontext())
    (found,) = stores.store(setting)
    assert found.result == FAIL and "two get one lease" in found.detail
    assert left(Path(setting.store)) == []


def test_a_disk_that_gives_back_something_else(setting: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(stores.store_at(setting.store)), "failure", lambda *_: "another word")
    (found,) = stores.store(setting)
    assert found.result == FAIL and "something else" in found.detail


def test_nodes_that_share_a_store(setting: CheckContext, nodes: Callable[[Mapping[str, str]], Ask]) -> None:
    ask = nodes({"head": setting.store, "gpu-1": setting.store})
    found = stores.sharing(ask, setting.store, ["head", "gpu-1"])
    assert [(f.node, f.result) for f in found] == [("driver", OK), ("head", OK), ("gpu-1", OK)]
    assert left(Path(setting.store)) == []


def test_a_node_whose_folder_is_its_own(
    setting: CheckContext, tmp_path: Path, nodes: Callable[[Mapping[str, str]], Ask]
) -> None:
    ask = nodes({"head": setting.store, "gpu-1": str(tmp_path / "own")})
    driver, head, gpu = stores.sharing(ask, setting.store, ["head", "gpu-1"])
    assert {f.result for f in (driver, head, gpu)} == {FAIL}
    assert "what gpu-1 wrote is not there" in head.detail and "what driver, head wrote is not there" in gpu.detail
    assert "s3://" in gpu.fix
    assert left(Path(setting.store)) == left(tmp_path / "own") == []


def test_a_node_that_sees_all_and_gets_a_lease_that_is_held(
    setting: CheckContext, nodes: Callable[[Mapping[str, str]], Ask]
) -> None:
    ask = nodes({"head": setting.store, "gpu-1": setting.store})

    def unlocked(method: str, arguments: Mapping[str, tuple[Any, ...]]) -> Mapping[str, Any]:
        return ask(method, arguments) if method != "contend" else {"head": False, "gpu-1": True}

    found = stores.sharing(unlocked, setting.store, ["head", "gpu-1"])
    assert [f.result for f in found] == [OK, OK, FAIL] and "lease that the driver holds" in found[2].detail


def test_a_node_that_cannot_write_says_so_itself(
    setting: CheckContext, nodes: Callable[[Mapping[str, str]], Ask]
) -> None:
    ask = nodes({"head": setting.store, "gpu-1": "/proc/results"})
    found = stores.sharing(ask, setting.store, ["head", "gpu-1"])
    assert [f.result for f in found] == [OK, OK, FAIL] and "not writable" in found[2].detail


def test_a_driver_that_cannot_write_holds_no_lease(nodes: Callable[[Mapping[str, str]], Ask], tmp_path: Path) -> None:
    found = stores.sharing(nodes({"head": str(tmp_path)}), "/proc/results", ["head"])
    assert found[0].result == FAIL and "not writable" in found[0].detail


@pytest.mark.parametrize(
    ("kind", "options", "nodes", "result", "words"),
    [
        ("ext4", "rw,relatime", 1, OK, "ext4"),
        ("ext4", "rw,relatime", 3, WARN, "only one machine"),
        ("nfs4", "rw,vers=4.2,hard,local_lock=none", 3, OK, "nfs4"),
        ("nfs", "rw,vers=3,nolock", 3, FAIL, "nolock"),
        ("nfs", "rw,vers=3,nolock", 1, OK, "one machine only"),
        ("nfs4", "rw,local_lock=flock", 3, FAIL, "local_lock=flock"),
        ("nfs", "rw,vers=2", 3, FAIL, "NFS 2"),
        ("nfs4", "rw,soft", 3, WARN, "soft"),
        ("lustre", "rw,noflock", 3, FAIL, "without flock"),
        ("lustre", "rw,localflock", 3, FAIL, "localflock"),
        ("lustre", "rw,flock", 3, OK, "lustre"),
        ("cifs", "rw,nobrl", 3, FAIL, "nobrl"),
        ("fuse.s3fs", "rw", 1, FAIL, "object storage"),
        ("fuse.gcsfuse", "rw", 3, FAIL, "object storage"),
        ("tmpfs", "rw", 1, WARN, "goes with the machine"),
        ("overlay", "rw", 1, WARN, "goes with the container"),
        ("", "", 1, OK, "unknown"),
    ],
)
def test_what_is_known_of_kinds_of_disks(kind: str, options: str, nodes: int, result: str, words: str) -> None:
    found = stores.hint(Mount(Path("/store"), kind, tuple(options.split(","))), nodes)
    assert found.result == result and words in found.detail and "/store" in found.detail


def test_the_disk_of_a_store_is_asked_for_its_kind_and_room(setting: CheckContext) -> None:
    for check in (stores.file_system, stores.space):
        (found,) = check(setting)
        assert found.result in (OK, WARN, FAIL)
        (found,) = check(replace(setting, store="s3://bucket/results"))
        assert found.result == SKIPPED


@pytest.mark.parametrize(
    ("store", "address", "folder"),
    [
        ("/a/b", "/a/b", "/a/b"),
        ("file:///a/b%20c", "file:///a/b%20c", "/a/b c"),
        ("s3://bucket/x", "s3://bucket/x", None),
    ],
)
def test_addresses(store: str, address: str, folder: str | None) -> None:
    assert stores.address(store) == address
    assert stores.folder(address) == (Path(folder) if folder else None)


def test_a_relative_store_means_one_folder_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert stores.address("results") == str(tmp_path / "results")
    assert stores.address("~/results") == "/home/me/results"
