"""Preparation of a two-region case beside plain pyradiomics, one process a core, in the same run.

    python benchmarks/radiomics_case.py [--cores 2] [--json FILE]

A case is a CT of 9 million voxels with a liver (2.1 million voxels) and a tumour (40,000), 1 mm, bins of 25 HU,
Original + Wavelet + five LoG: 2,632 features. Every core prepares one case with ours, then one with pyradiomics' own
extractor. Then one case alone, as `--jobs 1` and `--jobs CORES` prepare it. Printed: seconds, their ratio, how far
values are apart, and the ratio of a repeat run that finds the case finished.
"""

import argparse
import json
import logging
import tempfile
import time
import warnings
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import SimpleITK as sitk
from scipy import ndimage

from cohortium.client.imaging.case import CaseFiles, case_key, measure
from cohortium.client.imaging.dispatch import measure_cases
from cohortium.client.imaging.recipe import Recipe
from cohortium.client.imaging.store import Store, finished
from cohortium.client.imaging.workers import worker_pool
from cohortium.common.progress import NullProgress
from cohortium.common.study_images import Image, MaskRegion, RadiomicsFeatures
from cohortium.sites.site_file import MaskFile

SHAPE = (150, 230, 270)
SIGMAS = (1.0, 2.0, 3.0, 4.0, 5.0)
REGIONS = {"liver": ((75, 115, 135), (64, 83, 95)), "tumour": ((75, 100, 110), (18, 21, 25.5))}
RECIPE = Recipe(
    {"ct": Image(modality="CT")},
    {name: MaskRegion() for name in REGIONS},
    {
        "radiomics": RadiomicsFeatures(
            kind="radiomics",
            images=("ct",),
            regions=tuple(REGIONS),
            image_types=("Original", "Wavelet", "LoG"),
            log_sigma_mm=SIGMAS,
            bin_width={"ct": 25.0},
        )
    },
)


def write_case(folder: Path, seed: int) -> CaseFiles:
    """A textured CT with both masks."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal(SHAPE, dtype=np.float32), 2) * 900
    values = np.round(60 + smooth + 40 * rng.standard_normal(SHAPE, dtype=np.float32)).astype(np.int16)
    folder.mkdir(parents=True)
    sitk.WriteImage(sitk.GetImageFromArray(values), folder / "ct.nii.gz")
    masks = {}
    for name, (centre, radii) in REGIONS.items():
        apart = [((axis - c) / r) ** 2 for axis, c, r in zip(np.ogrid[*map(slice, SHAPE)], centre, radii, strict=True)]
        inside = sum(apart) <= 1
        masks["ct", name] = folder / f"{name}.nii.gz"
        sitk.WriteImage(sitk.GetImageFromArray(inside.astype(np.uint8)), masks["ct", name])
    parts = {key: MaskFile(path="{patient_id}.nii.gz") for key in masks}
    return CaseFiles(folder.name, {"ct": folder / "ct.nii.gz"}, masks, parts)


def ours(files: CaseFiles) -> tuple[float, dict[str, float]]:
    """Processor seconds and features of one case, put into a store."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    start = time.process_time()
    measured = measure(files, RECIPE)
    store_of(files).put(case_key(files, RECIPE), {"values": measured.values})
    seconds = time.process_time() - start
    return seconds, dict(zip(RECIPE.radiomics_columns(), measured.values.tolist(), strict=True))


def again(files: CaseFiles) -> float:
    """Seconds to find the finished case."""
    start = time.perf_counter()
    found = store_of(files).get(case_key(files, RECIPE))
    assert found is not None
    return time.perf_counter() - start


def alone(files: CaseFiles, jobs: int) -> tuple[float, float, np.ndarray]:
    """Seconds, processor seconds of the busiest process, and features of one case by so many processes."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    store = Store(files.images["ct"].parent / f"alone{jobs}")
    start, before = time.perf_counter(), time.process_time()
    before_us = set(psutil.Process().children())
    with worker_pool(jobs) as pool, NullProgress().stage("case", total=1) as step:
        [done] = measure_cases([files], RECIPE, store, pool, step)
        workers = set(psutil.Process().children()) - before_us
        busy = [time.process_time() - before, *(sum(worker.cpu_times()[:2]) for worker in workers)]
    return time.perf_counter() - start, max(busy), finished(store, done.found)["values"]


def plain(files: CaseFiles) -> tuple[float, dict[str, float]]:
    """Processor seconds and features of pyradiomics' own extractor."""
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    warnings.simplefilter("ignore")
    logging.getLogger("radiomics").setLevel(logging.CRITICAL)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    extractor = RadiomicsFeatureExtractor(additionalInfo=False, binWidth=25.0, label=1)
    extractor.enableImageTypeByName("Wavelet")
    extractor.enableImageTypeByName("LoG", customArgs={"sigma": list(SIGMAS)})
    start = time.process_time()
    image = sitk.ReadImage(files.images["ct"], sitk.sitkFloat64)
    found = {}
    for (_, region), path in files.masks.items():
        values = extractor.execute(image, sitk.ReadImage(path))
        found |= {f"features.radiomics/ct/{region}/{name}": float(value) for name, value in values.items()}
    return time.process_time() - start, found


def store_of(files: CaseFiles) -> Store:
    """Finished cases, beside the case."""
    return Store(files.images["ct"].parent / "finished")


def apart(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    """Largest relative difference by filter."""
    worst: dict[str, float] = {}
    for name, value in b.items():
        kind = name.rsplit("/", 1)[1].split("_")[0]
        kind = kind if kind == "original" else kind.split("-")[0]
        worst[kind] = max(worst.get(kind, 0.0), abs(a[name] - value) / max(abs(value), 1e-9))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, get_context("spawn").Pool(options.cores) as pool:
        cases = [write_case(Path(folder) / f"case{i}", i) for i in range(options.cores)]
        result: dict[str, float] = {"cores": options.cores}
        walls, found = {}, {}
        for name, run in (("ours", ours), ("plain", plain)):
            start = time.perf_counter()
            found[name] = pool.map(run, cases, chunksize=1)
            walls[name] = time.perf_counter() - start
            result[f"{name}_seconds"] = walls[name]
            result[f"{name}_processor_seconds"] = sum(seconds for seconds, _ in found[name]) / options.cores
        repeat = pool.map(again, cases, chunksize=1)
        # On a machine that others use too, the ratio of processor seconds is the fairer one
        result["speed_up"] = walls["plain"] / walls["ours"]
        result["speed_up_processor"] = result["plain_processor_seconds"] / result["ours_processor_seconds"]
        result["repeat_seconds"] = max(repeat)
        result["repeat_speed_up"] = walls["ours"] / max(repeat)
        one, many = alone(cases[0], 1), alone(cases[0], options.cores)
        assert np.array_equal(one[2], many[2], equal_nan=True)
        result |= {"alone_seconds": one[0], f"alone_seconds_{options.cores}_jobs": many[0]}
        result |= {"alone_speed_up": one[0] / many[0], "alone_speed_up_processor": one[1] / many[1]}
        assert found["ours"][0][1].keys() == found["plain"][0][1].keys()
        for kind, difference in apart(found["ours"][0][1], found["plain"][0][1]).items():
            result[f"largest_relative_difference_{kind}"] = difference
    for name, value in result.items():
        print(f"{name:40} {value:.4g}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
