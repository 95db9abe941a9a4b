"""Pretrain: the frozen backbone of the gastric-recurrence study, on a synthetic cohort of its own.

As in the published study (Cao et al., Int J Surg 2024;110:7598) the network first learns another task on other
patients: the tumour's regression grade, here a coarse and noisy reading of what the image shows of a tumour's biology.
Patients come from many invented scanners, none of them a site of the study. The weights are written in half precision
in the format `cohortium`, with the sha256 that study.toml must name.
"""

# ruff: noqa: T201 -- a script whose result is what it prints

import argparse
import tomllib
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from cohortium.client.imaging.deep import build
from cohortium.client.imaging.slices import largest_slice
from cohortium.client.imaging.weights import write_weights
from cohortium.common.study_images import Image
from cohortium.simulation import synthetic
from cohortium.simulation.synthetic_plan import read_plan

HERE = Path(__file__).parent
NAME, WIDTH = "resnet10", 16
SEED = 20110101  # of a cohort that nothing else uses
FIRST_SCANNER, SCANNERS = 100, 40
"""Invented sites beyond those that a demonstration would add with ``--sites``."""
GRADE_CUTS = (-0.8, 0.0, 0.8)
READING_SD = 0.5
"""Disagreement of the pathologist with the tumour, in SDs of aggressiveness."""


def pictures(patients: int, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tumour slices (n, 1, h, w) in -1..1, prepared as at a site, and their regression grades (n,)."""
    plan = read_plan(HERE).with_training_sites(FIRST_SCANNER + SCANNERS)
    sites = plan.site[FIRST_SCANNER : FIRST_SCANNER + SCANNERS]
    image = Image(
        modality="CT", window_hu=tuple(tomllib.loads((HERE / "study.toml").read_text())["image"]["ct"]["window_hu"])
    )
    rng = np.random.default_rng(SEED)
    shown, grades = [], []
    for i in range(patients):
        site = sites[i % SCANNERS]
        volume, mask = synthetic.imaging(plan, site, i, seed=SEED)
        picture = torch.from_numpy(largest_slice(volume.astype(float), mask > 0, image))[None, None]
        shown.append(functional.interpolate(picture, size=size, mode="bilinear", align_corners=False, antialias=True))
        reading = synthetic.patient(plan, site, i, seed=SEED).aggressiveness + rng.normal(0, READING_SD)
        grades.append(int(np.digitize(reading, GRADE_CUTS)))
    return torch.cat(shown), torch.tensor(grades)


def train(images: torch.Tensor, grades: torch.Tensor, epochs: int, batch: int = 64) -> torch.nn.Module:
    """A network that tells the grade; the classifier on top of it is thrown away."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # the same weights in every run of the same torch on the same kind of machine
    backbone = build(NAME, channels=1, width=WIDTH)
    network = torch.nn.Sequential(backbone, torch.nn.Dropout(0.2), torch.nn.Linear(8 * WIDTH, len(GRADE_CUTS) + 1))
    held_out = len(images) // 10
    steps = epochs * -(-(len(images) - held_out) // batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=2e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for epoch in range(epochs):
        network.train()
        total = 0.0
        order = held_out + torch.randperm(len(images) - held_out)
        for index in order.split(batch):
            shown = torch.rot90(images[index], int(torch.randint(4, ())), (2, 3))
            shown = shown.flip(3) if torch.rand(()) < 0.5 else shown
            loss = functional.cross_entropy(network(shown), grades[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(index)
        network.eval()
        with torch.inference_mode():
            right = network(images[:held_out]).argmax(1) == grades[:held_out]
        print(f"epoch {epoch + 1}: loss {total / len(order):.3f}, grade right in {right.float().mean():.1%} held out")
    return backbone.eval()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--patients", type=int, default=4000)
    options.add_argument("--epochs", type=int, default=12)
    options.add_argument("--out", type=Path, default=HERE / "gastric_backbone.npz")
    given = options.parse_args()
    size = tuple(tomllib.loads((HERE / "study.toml").read_text())["features"]["deep"]["size"])
    images, grades = pictures(given.patients, size)
    print(f"{len(images)} pictures, grades {np.bincount(grades).tolist()}")
    backbone = train(images, grades, given.epochs)
    sha256 = write_weights(given.out, backbone.half(), name=NAME, width=WIDTH)
    print(f"{given.out.name}: {given.out.stat().st_size} bytes, sha256 = {sha256}")


if __name__ == "__main__":
    main()
