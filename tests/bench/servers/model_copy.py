"""A model file for one server alone.

Were it the same file for all, its pages would be shared between servers that have nothing to do with one
another, and each one's proportional memory would depend on how many others run.
"""

import shutil
from pathlib import Path


def copy_of(model: Path, place: Path) -> Path:
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model, place)
    return place
