"""Examples for tests that train: a few rendered faces with true answers to all eight questions."""

import random
from pathlib import Path

from facellm import face_text, faces
from facellm.data import Attribute, Example, Provenance, sha256_file


def make_examples(folder: Path, count: int) -> list[Example]:
    """Draw `count` faces of 64 pixels into the folder; eight pairs each."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for seed in range(count):
        face = faces.sample(seed)
        path = folder / f"{seed}.png"
        faces.render(face, 64).save(path)
        for attribute in Attribute:
            found.append(
                Example(
                    images=(str(path),),
                    attribute=attribute,
                    question=attribute.question,
                    answer=face_text.answer(face, attribute, random.Random(seed)),
                    provenance=Provenance(image_sha256=(sha256_file(path),)),
                )
            )
    return found
