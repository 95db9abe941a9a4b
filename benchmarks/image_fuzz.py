"""Image fuzz: throw damaged images and contours at a site's readers and count what they do; nothing may crash or hang.

    python benchmarks/image_fuzz.py --inputs 10000 --seed 0

Each input is a true case of one kind (DICOM series plain and compressed, enhanced DICOM, PET brought to SUV, NIfTI,
NRRD, MetaImage, RTSTRUCT, SEG) of which one file is cut, has bits flipped, bytes set, stretches doubled or dropped, or
is swapped for a file of another kind; of compressed pixels every other input is injured in the pixels alone. A reader
may take it or refuse it with a `CaseError`; any other error, a death of the process, over five seconds, or over one GiB
more of address space ends the run with the input's number, which repeats it: --seed S --only KIND --first N --inputs 1.
"""

import argparse
import importlib.util
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import Process
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate, generate_frames

from cohortium.client.imaging.case import CaseFiles, Recipe
from cohortium.client.imaging.examine import Examined, examine
from cohortium.common.study_images import Image, MaskRegion
from cohortium.sites.site_file import MaskFile

ROOT = Path(__file__).resolve().parents[1]
LONGEST_S = 5
MOST_MEMORY = 2**30
BATCH = 200
"""Inputs a child process: forking is cheap, and its death is told from the parent's."""
SHAPE = (5, 12, 14)
INTERESTING = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\xff\xff",
    b"-1\\-",
    b"1e99",
    b"nan ",
)


def _phantom() -> object:
    spec = importlib.util.spec_from_file_location("phantom", ROOT / "tests/client/imaging/dicom_phantom.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Kind(NamedTuple):
    """A true case: its image and mask (file or folder), and the files that are damaged."""

    image: str
    mask: str
    damaged: tuple[str, ...]


KINDS = {
    "series": Kind("ct", "mask.nii.gz", ("ct/1.dcm",)),
    "jpeg2000": Kind("jpeg2000", "mask.nii.gz", ("jpeg2000/2.dcm",)),
    "jpeg-ls": Kind("jpeg-ls", "mask.nii.gz", ("jpeg-ls/2.dcm",)),
    "jpeg lossless": Kind("jpeg lossless", "mask.nii.gz", ("jpeg lossless/2.dcm",)),
    "jpeg": Kind("jpeg", "mask.nii.gz", ("jpeg/2.dcm",)),
    "rle": Kind("rle", "mask.nii.gz", ("rle/2.dcm",)),
    "enhanced": Kind("enhanced.dcm", "mask.nii.gz", ("enhanced.dcm",)),
    "enhanced rle": Kind("enhanced rle.dcm", "mask.nii.gz", ("enhanced rle.dcm",)),
    "pet": Kind("pet", "mask.nii.gz", ("pet/0.dcm",)),
    "series 0": Kind("ct", "rs.dcm", ("ct/0.dcm",)),
    "nifti": Kind("image.nii", "mask.nii", ("image.nii", "mask.nii")),
    "nifti gz": Kind("image.nii.gz", "mask.nii.gz", ("image.nii.gz", "mask.nii.gz")),
    "nrrd": Kind("image.nrrd", "mask.nrrd", ("image.nrrd", "mask.nrrd")),
    "metaimage": Kind("image.mha", "mask.mha", ("image.mha", "mask.mha")),
    "rtstruct": Kind("ct", "rs.dcm", ("rs.dcm",)),
    "seg": Kind("ct", "seg.dcm", ("seg.dcm",)),
}
COMPRESSED = {
    "jpeg2000": uid.JPEG2000Lossless,
    "jpeg-ls": uid.JPEGLSLossless,
    "jpeg lossless": uid.JPEGLosslessSV1,
    "jpeg": uid.JPEGBaseline8Bit,
    "rle": uid.RLELossless,
}
WEIGHTS = dict(zip(KINDS, (3, 3, 3, 3, 2, 3, 4, 2, 2, 2, 2, 2, 1, 1, 5, 4), strict=True))


def write_seeds(folder: Path) -> None:
    """One true case in every format."""
    phantom = _phantom()
    rng = np.random.default_rng(0)
    series = phantom.slices(rng.integers(-200, 300, SHAPE).astype(np.int16))
    for number, data in enumerate(series):
        phantom.write(data, folder / "ct" / f"{number}.dcm")
    values = phantom.slices(rng.integers(0, 999, SHAPE).astype(np.int16))
    for name, syntax in COMPRESSED.items():
        for number, data in enumerate(phantom.compressed(values, syntax)):
            phantom.write(data, folder / name / f"{number}.dcm")
    phantom.write(phantom.enhanced(values), folder / "enhanced.dcm")
    phantom.write(phantom.enhanced(phantom.compressed(values, uid.RLELossless)), folder / "enhanced rle.dcm")
    for number, data in enumerate(phantom.pet(rng.integers(0, 999, SHAPE).astype(np.int16))):
        phantom.write(data, folder / "pet" / f"{number}.dcm")
    contours = [phantom.box_outline(2.5, 9.5, 2.5, 8.5, z) for z in (1, 2, 3)]
    phantom.write(phantom.structure_set({"GTV": contours, "liver": contours[:1]}), folder / "rs.dcm")
    inside = np.zeros(SHAPE, dtype=bool)
    inside[1:4, 3:9, 3:10] = True
    phantom.write(phantom.segmentation(series, {"GTV": inside, "liver": ~inside}), folder / "seg.dcm")
    image = sitk.ReadImage([str(folder / "ct" / f"{z}.dcm") for z in range(SHAPE[0])])
    mask = sitk.GetImageFromArray(inside.astype(np.uint8))
    mask.CopyInformation(image)
    for suffix in ("nii", "nii.gz", "nrrd", "mha"):
        sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32), str(folder / f"image.{suffix}"))
        sitk.WriteImage(mask, str(folder / f"mask.{suffix}"))


def injured(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """A file's bytes with one to six injuries, or another file's."""
    if rng.random() < 0.05:
        return rng.choice(others)
    found = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        if not found:
            break
        # Headers decide most: half of all injuries are in the first two kilobytes
        at = rng.randrange(min(len(found), 2048) if rng.random() < 0.5 else len(found))
        injury = rng.randrange(7)
        if injury < 2:
            found[at] ^= 1 << rng.randrange(8)
        elif injury == 2:
            del found[at:]
        elif injury == 3:
            odd = rng.choice(INTERESTING)
            found[at : at + len(odd)] = odd
        elif injury == 4:
            del found[at : at + rng.randint(1, 40)]
        elif injury == 5:
            found[at:at] = found[at : at + rng.randint(1, 40)]
        else:
            other = rng.choice(others)
            found[at:] = other[min(at, len(other)) :]
    return bytes(found)


def injured_stream(rng: random.Random, data: bytes) -> bytes:
    """A file of compressed pixels that is whole but for one frame's stream: what the decoders meet."""
    found = dcmread(io.BytesIO(data))
    streams = list(generate_frames(found.PixelData, number_of_frames=int(found.get("NumberOfFrames", 1))))
    chosen = rng.randrange(len(streams))
    streams[chosen] = injured(rng, streams[chosen], streams) or b"\0\0"
    found.PixelData = encapsulate(streams)
    written = io.BytesIO()
    found.save_as(written)
    return written.getvalue()


def fuzz_one(kind: str, number: int, seed: int, seeds: Path, here: Path) -> Examined:
    """Damage one input and let a site look at it; raises whatever is not a finding."""
    shutil.rmtree(here, ignore_errors=True)
    given = KINDS[kind]
    rng = random.Random(f"{seed} {kind} {number}")
    for name in (given.image, given.mask):
        source = seeds / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, _made(here) / name)
    others = [path.read_bytes() for path in sorted(seeds.rglob("*")) if path.is_file()]
    target = here / rng.choice(given.damaged)
    data = target.read_bytes()
    inside = (kind in COMPRESSED or kind == "enhanced rle") and number % 2
    target.write_bytes(injured_stream(rng, data) if inside else injured(rng, data, others))
    settings = Image(modality="PET", units="suv_bw") if kind == "pet" else Image(modality="CT")
    recipe = Recipe({"ct": settings}, {"tumour": MaskRegion()}, {})
    part = {
        "rs.dcm": MaskFile(path="{patient_id}", roi=("GTV",)),
        "seg.dcm": MaskFile(path="{patient_id}", segment=(1,)),
    }
    mask = part.get(given.mask, MaskFile(path="{patient_id}"))
    place = ("ct", "tumour")
    return examine(CaseFiles("p", {"ct": here / given.image}, {place: here / given.mask}, {place: mask}), recipe)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _address_space() -> int:
    """Largest size of this process so far, bytes (Linux)."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmPeak:")[1].split()[0]) * 1024


def run_batch(work: Callable[[int], Examined], numbers: range) -> tuple[Counter, float]:
    """Inputs in a child process; what they came to by reason, and the slowest's seconds.

    Raises
    ------
    RuntimeError
        An input that is neither taken nor refused, by number.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        status = 0
        try:
            _child(work, numbers, write)
        except BaseException as wrong:  # noqa: BLE001 -- it is told, whatever it is
            os.write(write, f"wrong\t{type(wrong).__name__}: {wrong}\n".encode())
            status = 1
        os._exit(status)
    os.close(write)
    with os.fdopen(read, encoding="utf-8", errors="replace") as stream:
        lines = [line.rstrip("\n").split("\t") for line in stream]
    _, status = os.waitpid(child, 0)
    outcomes = Counter(line[2] for line in lines if line[0] == "done")
    if status:
        begun = numbers[sum(outcomes.values())]
        why = next((line[1] for line in lines if line[0] == "wrong"), f"the process died, status {status}")
        raise RuntimeError(f"input {begun}: {why}")
    return outcomes, max(float(line[1]) for line in lines)


def _child(work: Callable[[int], Examined], numbers: range, told: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # MetaImage and NIfTI libraries print what they dislike
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process even where a library does not return
    roomy = _address_space() + MOST_MEMORY
    for number in numbers:
        signal.alarm(LONGEST_S)
        start = time.perf_counter()
        seen = work(number)
        seconds = time.perf_counter() - start
        signal.alarm(0)
        if _address_space() > roomy:
            raise MemoryError("over one GiB of memory")
        refusing = [reason for reason, _, refuses in seen.findings if refuses]
        os.write(told, f"done\t{seconds:.4f}\t{refusing[0] if refusing else 'taken'}\n".encode())


def run(kind: str, count: int, seed: int, folder: Path, first: int = 0) -> tuple[Counter, float]:
    """`count` inputs of a kind; outcomes by reason and the slowest."""
    seeds = folder / "seeds"
    if not seeds.exists():
        # Not here: a process whose ITK has threads must not fork
        writer = Process(target=write_seeds, args=(seeds,))
        writer.start()
        writer.join()
    here = folder / "case"
    outcomes, slowest = Counter(), 0.0

    def work(number: int) -> Examined:
        return fuzz_one(kind, number, seed, seeds, here)

    for begin in range(first, first + count, BATCH):
        batch, seconds = run_batch(work, range(begin, min(begin + BATCH, first + count)))
        outcomes += batch
        slowest = max(slowest, seconds)
    return outcomes, slowest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    import highdicom.seg  # noqa: F401 -- here once instead of in every child

    chosen = {options.only: 1} if options.only else WEIGHTS
    with tempfile.TemporaryDirectory() as folder:
        for kind, weight in chosen.items():
            count = -(-options.inputs * weight // sum(chosen.values()))
            try:
                outcomes, slowest = run(kind, count, options.seed, Path(folder), options.first)
            except RuntimeError as wrong:
                sys.exit(f"{kind}: {wrong}")
            taken = outcomes.pop("taken", 0)
            refused = sum(outcomes.values())
            print(f"{kind:13} {taken:6,} taken {refused:6,} refused, slowest {slowest:5.2f} s", flush=True)
            for reason, n in outcomes.most_common():
                print(f"{'':20} {n:6,} {reason}")


if __name__ == "__main__":
    main()
