"""Scenarios of the core: one fault each, during trials without Ray, which plays no part in them."""

import random
import shutil
from pathlib import Path

from tests.faults.disks import Disk
from tests.faults.scenarios import Extent
from tests.faults.site import Site
from tests.faults.work import Run, Wrong, pause, until


def flipped_byte(site: Site, extent: Extent, rng: random.Random) -> str:
    """Flips a byte in files of finished stages; readers must notice it and rebuild the stages."""
    site.copies_undisturbed()
    single, multi = (cell.stages for cell in site.work.plan(site.address).cells)
    # A cell with wrong numbers and a wrong network; another, whose corpus is wrong, and whose readout is to be done.
    for stage, name in ((single[2], "metrics.json"), (single[1], None), (multi[0], None)):
        site.tell(f"a byte flipped in {stage.kind}", _flip(site.root / "stages" / stage.key, name, rng))
    shutil.rmtree(site.root / "stages" / multi[2].key)
    site.ends_well(site.alone())
    damaged = sorted(path.name for path in (site.root / "damaged").iterdir())
    if damaged != sorted(f"{stage.key}-1" for stage in (single[2], single[1], multi[0])):
        raise Wrong(f"moved aside: {damaged}")
    shutil.rmtree(site.root / "damaged")
    site.is_as_undisturbed()
    return "all three detected, moved aside and made again; as undisturbed"


def _flip(stage: Path, name: str | None, rng: random.Random) -> str:
    files = sorted(path for path in stage.rglob("*") if path.is_file() and path.name != "manifest.json")
    file = stage / name if name else rng.choice(files)
    raw = bytearray(file.read_bytes())
    place, bit = rng.randrange(len(raw)), rng.randrange(8)
    raw[place] ^= 1 << bit
    file.write_bytes(raw)
    return f"{file.relative_to(stage)}, byte {place}, bit {bit}"


def two_processes(site: Site, extent: Extent, rng: random.Random) -> str:
    """Two processes do the same stages at once."""
    with site.published_once():
        runs = [site.alone() for _ in range(2)]
        for run in runs:
            site.ends_well(run)
    site.is_as_undisturbed()
    _shared(site, [run.said for run in runs])
    return "each stage was done by one of them; as undisturbed"


def _shared(site: Site, said: list[str]) -> None:
    """Raises `Wrong` if both processes did the same step of pretraining."""
    for key in site.pretrainings:
        steps = [line for text in said for line in text.splitlines() if line.startswith(f"{key} ")]
        if again := len(steps) - len(set(steps)):
            raise Wrong(f"{again} lines of {key} were made by two")


def clock_jump(site: Site, extent: Extent, rng: random.Random) -> str:
    """The clock of one process jumps back an hour in the middle of its work, so that a second process takes it for
    dead."""
    clock, signal = site.folder / "clock", site.folder / "signal"
    clock.write_text("0")
    with site.published_once():
        first = site.alone(FAULTS_CLOCK=str(clock))
        # What both have to import would take longer than the work.
        second = site.alone(FAULTS_SIGNAL=str(signal))
        site.reaches(int(rng.uniform(0.1, 0.3) * site.work.steps), first)
        clock.write_text("-3600")
        site.tell("the first one's clock goes back an hour")
        signal.touch()
        for run in (second, first):
            site.ends_well(run)
    site.is_as_undisturbed()
    lost = "lease lost" in first.said
    return f"the first one {'lost its lease, and let the other go on' if lost else 'kept its lease'}; as undisturbed"


def disk_full(site: Site, extent: Extent, rng: random.Random) -> str:
    """A store on a small disk that is full in the middle of training, and free again later."""
    disk = site.keeps(Disk(site.root, 400))
    with site.published_once():
        run = site.alone()
        site.reaches(int(rng.uniform(0.1, 0.5) * site.work.steps), run)
        _without_room(site, disk, extent, run)
        site.ends_well(run)
    site.is_as_undisturbed()
    return "waited for room and went on; as undisturbed"


def worker_disk_full(site: Site, extent: Extent, rng: random.Random) -> str:
    """The small disk of a worker, whose results go to object storage, is full in the middle of training."""
    site.bucket()
    disk = site.keeps(Disk(site.folder / "disk", 400))
    with site.published_once():
        run = site.alone(KTRAIN_CACHE=str(disk.folder / "cache"))
        site.reaches(int(rng.uniform(0.1, 0.5) * site.work.steps), run)
        _without_room(site, disk, extent, run)
        site.ends_well(run)
    site.is_as_undisturbed()
    return "waited for room and went on; as undisturbed"


def _without_room(site: Site, disk: Disk, extent: Extent, run: Run) -> None:
    disk.fill()
    site.tell("the disk is full")
    until(lambda: "No space left on device" in run.said, "a word about the disk", run)
    pause(min(extent.away, 30.0), run)
    disk.free()
    site.tell("the disk has room")


def folder_away(site: Site, extent: Extent, rng: random.Random) -> str:
    """A store in a folder refuses writes for a while in the middle of training."""
    disk = site.keeps(Disk(site.root, 400))
    with site.published_once():
        run = site.alone()
        site.reaches(int(rng.uniform(0.1, 0.5) * site.work.steps), run)
        with disk.refusing():
            site.tell("the folder refuses writes")
            pause(min(extent.away, 30.0), run)
        site.tell("the folder takes writes")
        site.ends_well(run)
    site.is_as_undisturbed()
    return "as undisturbed"
