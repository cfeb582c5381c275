"""How the embedded base model is trained: first its eyes, then its tongue.

Used by `facellm.tiny`. The one surprising fact: trained end to end on captions from scratch, a model this small never
learns to see expressions. So the vision tower first learns every factor with heads that are thrown away afterwards.
"""

import random
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional
from transformers import InternVLForConditionalGeneration, InternVLProcessor, get_cosine_schedule_with_warmup
from transformers.modeling_outputs import BaseModelOutputWithPooling

from facellm.face_captions import LIST_PROMPT, listing
from facellm.face_captions import captions as face_captions
from facellm.faces import FACTORS
from facellm.tiny import IMAGE_SIZE, PATCH_SIZE
from facellm.tiny_faces import Pictures

BATCH = 32  # pictures a step, of the tower
ROWS = 48  # conversations a step, of the language model
LIST_SHARE, LISTS_END = 0.15, 0.7  # how many of the captions are lists, and in how much of that lesson
MAX_SHIFT = 2  # pixels, of the random shift that makes new pictures of old ones

Report = Callable[[str], None]
Conversation = list[tuple[str, str]]


class FactorHeads(nn.Module):
    """One linear classifier for each factor over the mean of the projected image tokens.

    The mean, because that is what an untrained language model attends to: what can be read there, it soon reads.
    """

    def __init__(self, width: int) -> None:
        """For image tokens of `width` channels."""
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({factor: nn.Linear(width, len(values)) for factor, values in FACTORS.items()})

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        """(batch, image tokens, width) → factor → logits of shape (batch, values)."""
        mean = self.norm(tokens.mean(dim=1))
        return {factor: head(mean) for factor, head in self.heads.items()}


def normalised(pixels: torch.Tensor, processor: InternVLProcessor) -> torch.Tensor:
    """uint8 (batch, 3, size, size) → what the processor would hand to the model."""
    images = processor.image_processor
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (images.image_mean, images.image_std))
    return (pixels.float() / 255 - mean) / std


def train_tower(
    model: InternVLForConditionalGeneration,
    processor: InternVLProcessor,
    pictures: Pictures,
    held_out: Pictures,
    *,
    images: int,
    seed: int,
    report: Report,
) -> dict[str, float]:
    """Teach the vision tower and the projector every factor, over `images` pictures in all.

    Returns:
        The accuracy of each factor on the held-out pictures.
    """
    torch.manual_seed(seed)
    heads = FactorHeads(model.config.get_text_config().hidden_size)
    learnt = [*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters()]
    targets = factor_targets(pictures)
    steps = images // BATCH
    optimizer = torch.optim.AdamW([*learnt, *heads.parameters()], lr=1e-3, weight_decay=0.05)
    schedule = get_cosine_schedule_with_warmup(optimizer, 200, steps)
    model.train()
    for step, rows in enumerate(batches(len(pictures.faces), steps, BATCH, seed), start=1):
        logits = heads(image_tokens(model, normalised(shifted(pictures.pixels[rows]), processor)))
        loss = torch.stack(
            [
                functional.cross_entropy(logits[factor], targets[factor][rows], label_smoothing=0.02)
                for factor in FACTORS
            ]
        ).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % (steps // 10) == 0:
            report(f"tower: {step}/{steps} steps, loss {loss.item():.3f}")
    return tower_accuracy(model, heads, processor, held_out)


def image_tokens(model: InternVLForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """What the language model gets to see of pictures: (batch, image tokens, width)."""
    return model.model.get_image_features(pixel_values=pixels).pooler_output


@torch.inference_mode()
def tower_accuracy(
    model: InternVLForConditionalGeneration, heads: FactorHeads, processor: InternVLProcessor, pictures: Pictures
) -> dict[str, float]:
    """Share of the pictures on which each factor's head is right."""
    model.eval()
    targets = factor_targets(pictures)
    right = dict.fromkeys(FACTORS, 0)
    for rows in torch.arange(len(pictures.faces)).split(256):
        for factor, logits in heads(image_tokens(model, normalised(pictures.pixels[rows], processor))).items():
            right[factor] += int((logits.argmax(-1) == targets[factor][rows]).sum())
    return {factor: count / len(pictures.faces) for factor, count in right.items()}


def factor_targets(pictures: Pictures) -> dict[str, torch.Tensor]:
    """Factor → the index of each face's value, of shape (faces,)."""
    return {
        factor: torch.tensor([values.index(getattr(face, factor)) for face in pictures.faces])
        for factor, values in FACTORS.items()
    }


def batches(count: int, steps: int, size: int, seed: int) -> Iterator[torch.Tensor]:
    """Row indices of `steps` batches of `size` rows: every row once before any row again."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < size:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[:size]
        order = order[size:]


def shifted(pixels: torch.Tensor) -> torch.Tensor:
    """The pictures moved together by a few pixels, their edges repeated."""
    size = pixels.shape[-1]
    across, down = torch.randint(0, 2 * MAX_SHIFT + 1, (2,)).tolist()
    padded = functional.pad(pixels.float(), (MAX_SHIFT,) * 4, mode="replicate")
    return padded[:, :, down : down + size, across : across + size]


def train_language(
    model: InternVLForConditionalGeneration,
    processor: InternVLProcessor,
    pictures: Pictures,
    *,
    lists: int,
    captions: int,
    seed: int,
    report: Report,
) -> None:
    """Teach the projector and the language model to say what the tower, now frozen, sees.

    Captions alone teach it to talk without looking: most of their loss is wording. So it first learns bare lists of
    all values, whose only uncertainty is the picture, and then to caption; lists end well before captions do.

    Args:
        lists: how many lists it is shown in all.
        captions: how many pictures with captions.
    """
    torch.manual_seed(seed)
    model.model.vision_tower.requires_grad_(False)
    shown = tower_features(model, processor, pictures)
    rng = random.Random(seed)

    def one_list(row: int, _: float) -> Conversation:
        return [(LIST_PROMPT, listing(pictures.faces[row]))]

    def some_captions(row: int, done: float) -> Conversation:
        still_lists = rng.random() < LIST_SHARE and done < LISTS_END
        return one_list(row, done) if still_lists else face_captions(pictures.faces[row], rng)

    lessons = (("lists", one_list, lists, 3e-3), ("captions", some_captions, captions, 2e-3))
    for name, conversation, count, rate in lessons:
        _lesson(
            model, processor, shown, conversation, steps=count // ROWS, rate=rate, seed=seed, name=name, report=report
        )
    model.requires_grad_(True).eval()


def _lesson(
    model: InternVLForConditionalGeneration,
    processor: InternVLProcessor,
    shown: torch.Tensor,
    conversation: Callable[[int, float], Conversation],
    *,
    steps: int,
    rate: float,
    seed: int,
    name: str,
    report: Report,
) -> None:
    """Train on conversations about pictures; `conversation` takes a picture's row and the share of the lesson done."""
    learnt = [weights for weights in model.parameters() if weights.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=rate, weight_decay=0.02, betas=(0.9, 0.98))
    schedule = get_cosine_schedule_with_warmup(optimizer, min(50, steps // 2), steps)
    model.train()
    for step, rows in enumerate(batches(len(shown), steps, ROWS, seed), start=1):
        tokens = captioned(processor, [conversation(row, step / steps) for row in rows.tolist()])
        seen = BaseModelOutputWithPooling(pooler_output=model.model.multi_modal_projector(shown[rows]))
        loss = model(**tokens, mm_encoder_outputs={"image": seen}).loss
        loss.backward()
        nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % max(1, steps // 10) == 0:
            report(f"{name}: {step}/{steps} steps, loss {loss.item():.3f}")


@torch.no_grad()
def tower_features(
    model: InternVLForConditionalGeneration, processor: InternVLProcessor, pictures: Pictures
) -> torch.Tensor:
    """What the projector gets to see of each picture: (faces, image tokens, folded width)."""
    model.eval()
    found = []
    for pixels in pictures.pixels.split(256):
        patches = model.model.vision_tower(normalised(pixels, processor)).last_hidden_state[:, 1:]
        side = IMAGE_SIZE // PATCH_SIZE
        grid = patches.unflatten(1, (side, side))
        found.append(model.model.pixel_shuffle(grid, scale_factor=model.config.downsample_ratio).flatten(1, 2))
    return torch.cat(found)


def captioned(processor: InternVLProcessor, conversations: list[list[tuple[str, str]]]) -> dict[str, torch.Tensor]:
    """Conversations about one picture each as input_ids, attention_mask and labels, all (conversations, length).

    The same tokens as the chat template gives; labels are the captions with their end of turn, elsewhere -100.
    """
    tokenizer = processor.tokenizer
    picture = f"{processor.start_image_token}{processor.image_token * processor.image_seq_length}"
    rows, targets = [], []
    for turns in conversations:
        ids: list[int] = []
        labels: list[int] = []
        for number, (prompt, reply) in enumerate(turns):
            seen = f"{picture}{processor.end_image_token}\n" if number == 0 else ""
            asked = tokenizer(f"<|im_start|>user\n{seen}{prompt}<|im_end|>\n<|im_start|>assistant\n").input_ids
            said = tokenizer(f"{reply}<|im_end|>").input_ids
            after = tokenizer("\n").input_ids
            ids += asked + said + after
            labels += [-100] * len(asked) + said + [-100] * len(after)
        rows.append(torch.tensor(ids))
        targets.append(torch.tensor(labels))
    input_ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    return {
        "input_ids": input_ids,
        "attention_mask": (input_ids != tokenizer.pad_token_id).long(),
        "labels": nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-100),
    }
