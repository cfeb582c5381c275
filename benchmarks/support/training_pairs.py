"""Images and question–answer pairs to train on, the same for every trainer, each in the trainer's own file.

    make_pairs(FOLDER, images=40, per_image=8)

Faces are rendered at 448 pixels, one tile each. Answers have 60 to 100 words, as those of FairFaceGPT. The one
surprising fact: part of the words are ones that the tiny tokenizer does not know and spells in pieces, so that an
answer has as many tokens as it would have with a real one, about four to three words.
"""

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from facellm.data import Attribute, Example, Provenance
from facellm.face_text import answer
from facellm.faces import EVALUATION_SEEDS, Face, render, sample

SIDE = 448  # pixels
WORDS = (60, 100)  # of an answer
# What all trainers are told before a conversation; about as long as the others' own system prompts in tokens.
SYSTEM = (
    "You look at the picture of a face. Describe what is to be seen: the age, the skin, the shape of the face, the "
    "expression, the light, the quality of the picture, the pose of the head and what covers it. Say no name, and "
    "nothing that cannot be seen in the picture. Write in whole sentences."
)
UNKNOWN = (
    "The jawline appears defined.",
    "Cheekbones give a subtle contour.",
    "Nothing suggests manipulation.",
    "Texture looks consistent throughout.",
)
MORE_QUESTIONS = tuple(
    f"Describe the {topic} of the image based on the visual information."
    for topic in ("hair", "beard", "glasses", "background", "eyes", "mouth", "age", "headwear")
)


def make_pairs(folder: Path, *, images: int, per_image: int, seed: int = 0, side: int = SIDE) -> list[Example]:
    """Render images into `folder`, and ask `per_image` (1 to 16) questions of each; images that are there are kept."""
    questions = [*(attribute.question for attribute in Attribute), *MORE_QUESTIONS][:per_image]
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    examples = []
    for number in range(images):
        face = sample(EVALUATION_SEEDS[seed * images + number])
        path = folder / f"{number:06}.png"
        if not path.is_file():
            render(face, side).save(path)
        for question in questions:
            provenance = Provenance(image_sha256=(f"{number:064x}",))
            examples.append(
                Example(images=(str(path),), question=question, answer=long_answer(face, rng), provenance=provenance)
            )
    return examples


def long_answer(face: Face, rng: random.Random) -> str:
    """What is to be seen of a face, in 60 to 100 words."""
    words: list[str] = []
    wanted = rng.randint(*WORDS)
    while len(words) < wanted:
        said = rng.choice(UNKNOWN) if rng.random() < 0.17 else answer(face, rng.choice(list(Attribute)), rng)
        words += said.split()
    return " ".join(words[:wanted])


def write_llamafactory(folder: Path, examples: Sequence[Example]) -> None:
    """A data set `pairs` as LLaMA-Factory reads it, in `folder`."""
    records = [
        {
            "messages": [
                {"role": "user", "content": "<image>" * len(each.images) + "\n" + each.question},
                {"role": "assistant", "content": each.answer},
            ],
            "images": list(each.images),
        }
        for each in examples
    ]
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    about = {
        "file_name": "pairs.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": tags,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairs.json").write_text(json.dumps(records))
    (folder / "dataset_info.json").write_text(json.dumps({"pairs": about}))


def write_trl(path: Path, examples: Sequence[Example]) -> None:
    """A file of prompts and completions with images, as TRL's SFTTrainer takes them."""
    records = [
        {
            "prompt": [{"role": "user", "content": each.question}],
            "completion": [{"role": "assistant", "content": each.answer}],
            "images": list(each.images),
        }
        for each in examples
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
