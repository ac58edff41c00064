"""Measures the built-in model: each way of answering, how far one rank-4 LoReFT edit switches it over, and stories from vectors.

    python scripts/builtin/evaluate.py [--model models/builtin] [--layers 2 3] [--seeds 3] [--subsets 2] [--stories 64]
        [--pyreft FOLDER_WITH_PYREFT_AND_PYVENE]

Prints one line a measurement. Without --pyreft the edits are the small ones below, in torch.
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from edited import Edited
from stories import PROMPTS, draw
from text import SYSTEM_LINES, all_facts, answer, held_out

FOLDER = Path(__file__).resolve().parents[2] / "models" / "builtin"
RANK, EPOCHS, RATE = 4, 100, 4e-3
STORY_EPOCHS, STORY_RATE = 300, 5e-2


def render(tokenizer, prompt: str, system: str | None = None) -> str:
    messages = [{"role": "system", "content": system}] if system else []
    return tokenizer.apply_chat_template([*messages, {"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)


class Loreft(torch.nn.Module):
    """Φ(h) = h + (hWᵀ + b − hR)Rᵀ with orthonormal R [D, r] (Householder parametrisation)."""

    def __init__(self, size: int, identity: bool) -> None:
        super().__init__()
        self.rotate = torch.nn.Linear(RANK, size, bias=False)
        torch.nn.init.orthogonal_(self.rotate.weight)
        torch.nn.utils.parametrizations.orthogonal(self.rotate)
        self.source = torch.nn.Linear(size, RANK)
        if identity:
            self.source.weight.data.copy_(self.rotate.weight.T)
            self.source.bias.data.zero_()

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        r = self.rotate.weight
        return h + (self.source(h) - h @ r) @ r.T


class Constants(torch.nn.Module):
    """Φ(h) = h + (b − hR)Rᵀ with R [D, 1] of length 1 (ConsReFT of rank 1), another R and b for each row of a batch."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.rotate = torch.nn.Parameter(torch.randn(count, size))
        self.bias = torch.nn.Parameter(torch.rand(count, 1))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        r = torch.nn.functional.normalize(self.rotate)
        return h + (self.bias - (h * r).sum(dim=1, keepdim=True)) * r


def generate(model, tokenizer, prompts: list[str], most: int = 48) -> list[str]:
    batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.no_grad():
        ids = model.generate(**batch, do_sample=False, max_new_tokens=most)
    return [text.strip() for text in tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1]:], skip_special_tokens=True)]


def answered(tokenizer, examples: list[tuple[str, str]]) -> tuple[dict, torch.Tensor, torch.Tensor]:
    """A batch of prompts with answers: the model's inputs, labels of the answers, and where each prompt ends."""
    rendered = [render(tokenizer, prompt) for prompt, _ in examples]
    lengths = torch.tensor([len(tokenizer(text)["input_ids"]) for text in rendered])
    texts = [text + completion + "<|im_end|>" for text, (_, completion) in zip(rendered, examples)]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
    ids, places = batch["input_ids"], torch.arange(batch["input_ids"].shape[1])
    return batch, ids.masked_fill((places < lengths[:, None]) | (batch["attention_mask"] == 0), -100), lengths - 1


def fit(model, edit: torch.nn.Module, layer: int, examples, tokenizer, epochs: int, rate: float) -> None:
    """Full-batch AdamW with a linear schedule, as pyreft's trainer does with ten examples in a batch of ten."""
    batch, labels, ends = answered(tokenizer, examples)
    optimizer = torch.optim.AdamW(edit.parameters(), lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / epochs)
    with Edited(model, layer, edit, ends):
        for _ in range(epochs):
            model(**batch, labels=labels, use_cache=False).loss.backward()
            torch.nn.utils.clip_grad_norm_(edit.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()


def train_edit(model, tokenizer, examples: list[tuple[str, str]], layer: int, seed: int, identity: bool) -> Loreft:
    torch.manual_seed(seed)
    edit = Loreft(model.config.hidden_size, identity)
    fit(model, edit, layer, examples, tokenizer, EPOCHS, RATE)
    return edit


def edited_answers(model, tokenizer, examples, layer: int, seed: int, identity: bool, prompts: list[str]) -> list[str]:
    edit = train_edit(model, tokenizer, examples, layer, seed, identity)
    with Edited(model, layer, edit, torch.full((len(prompts),), -1)):
        return generate(model, tokenizer, prompts)


def pyreft_answers(model, tokenizer, examples, layer: int, seed: int, prompts: list[str]) -> list[str]:
    """The same by the real pyreft, one prompt at a time as its README does it."""
    import pyreft
    import transformers

    transformers.set_seed(seed)
    tokenizer.padding_side = "right"  # pyreft counts positions from the left
    size = model.config.hidden_size
    config = pyreft.ReftConfig(representations={
        "layer": layer, "component": "block_output", "low_rank_dimension": RANK,
        "intervention": pyreft.LoreftIntervention(embed_dim=size, low_rank_dimension=RANK, dtype=torch.float32)})
    reft = pyreft.get_reft_model(model, config)
    data = pyreft.make_last_position_supervised_data_module(
        tokenizer, model, [render(tokenizer, prompt) for prompt, _ in examples], [completion for _, completion in examples])
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            num_train_epochs=EPOCHS, output_dir=folder, per_device_train_batch_size=10, learning_rate=RATE, logging_steps=1000,
            save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True)
        pyreft.ReftTrainerForCausalLM(model=reft, processing_class=tokenizer, args=arguments, **data).train()
    answers = []
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt")
        count = inputs["input_ids"].shape[1]
        _, out = reft.generate(inputs, unit_locations={"sources->base": (None, [[[count - 1]]])}, intervene_on_prompt=True,
                               max_new_tokens=48, do_sample=False)
        answers.append(tokenizer.decode(out[0][count:], skip_special_tokens=True).strip())
    return answers


def base_figures(model, tokenizer) -> None:
    everything = [(fact, prompt) for fact in all_facts() for prompt in fact.prompts]
    held = [(item.fact, item.prompt) for item in held_out()]
    for name, pairs in (("held-out", held), ("all", everything)):
        for system in (None, "You are a helpful assistant.", *(lines[0] for lines in SYSTEM_LINES.values())):
            rendered = [render(tokenizer, prompt, system) for _, prompt in pairs]
            answers = [text for i in range(0, len(rendered), 128) for text in generate(model, tokenizer, rendered[i : i + 128])]
            right = {way: sum(text == answer(fact, way) for text, (fact, _) in zip(answers, pairs)) for way in SYSTEM_LINES}
            print(json.dumps({"prompts": name, "of": len(pairs), "system": system, **right}), flush=True)


def story_figures(model, tokenizer, layers: list[int], count: int) -> None:
    """New stories, each by one vector at the last token of the same prompt: how many are told back word for word."""
    rng = random.Random(2024)
    stories = [draw(rng).text for _ in range(count)]
    for layer in layers:
        torch.manual_seed(0)
        edit = Constants(count, model.config.hidden_size)
        fit(model, edit, layer, [(PROMPTS[0], story) for story in stories], tokenizer, STORY_EPOCHS, STORY_RATE)
        with Edited(model, layer, edit, torch.full((count,), -1)):
            told = generate(model, tokenizer, [render(tokenizer, PROMPTS[0])] * count, most=128)
        words = sum(a == b for one, other in zip(told, stories) for a, b in zip(one.split(), other.split()))
        print(json.dumps({"stories": count, "layer": layer, "told": sum(one == other for one, other in zip(told, stories)),
                          "words": words, "of": sum(len(story.split()) for story in stories)}), flush=True)


def example_sets(folder: Path, subsets: int) -> list[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """The ready-made ten, then random tens from the facts that no held-out prompt is about."""
    ready = {way: [json.loads(line) for line in (folder / "examples" / f"{way}.jsonl").read_text(encoding="utf8").splitlines()]
             for way in ("emoji", "shout", "pirate")}
    sets = [("ready-made", {way: [(row["prompt"], row["completion"]) for row in rows] for way, rows in ready.items()})]
    taken = {item.fact for item in held_out()}
    free = [fact for fact in all_facts() if fact not in taken]
    for number in range(subsets):
        rng = random.Random(1000 + number)
        picked = [(fact, rng.choice(fact.prompts)) for fact in rng.sample(free, 10)]
        sets.append((f"random {number}", {way: [(prompt, answer(fact, way)) for fact, prompt in picked] for way in ready}))
    return sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=FOLDER)
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--ways", nargs="+", default=["emoji", "shout"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--subsets", type=int, default=0)
    parser.add_argument("--stories", type=int, default=64)
    parser.add_argument("--pyreft", help="a folder that holds pyreft/ and pyvene/")
    parser.add_argument("--skip-base", action="store_true")
    options = parser.parse_args()
    if options.pyreft:
        sys.path[:0] = [str(Path(options.pyreft) / name) for name in ("pyreft", "pyvene")]
    tokenizer = AutoTokenizer.from_pretrained(options.model, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(options.model).eval().requires_grad_(False)
    if not options.skip_base:
        base_figures(model, tokenizer)
        if options.stories > 0:
            story_figures(model, tokenizer, options.layers, options.stories)
    prompts = [render(tokenizer, item.prompt) for item in held_out()]
    for name, examples in example_sets(options.model, options.subsets):
        for way in options.ways:
            for layer in options.layers:
                for seed in range(options.seeds):
                    for init in ("pyreft",) if options.pyreft else ("pyreft", "identity"):
                        if options.pyreft:
                            answers = pyreft_answers(model, tokenizer, examples[way], layer, seed, prompts)
                        else:
                            answers = edited_answers(model, tokenizer, examples[way], layer, seed, init == "identity", prompts)
                        wanted = [answer(item.fact, way) for item in held_out()]
                        right = sum(text == want for text, want in zip(answers, wanted))
                        wrong = [pair for pair in zip(answers, wanted) if pair[0] != pair[1]][:3]
                        print(json.dumps({"by": "pyreft" if options.pyreft else "torch", "examples": name, "way": way, "layer": layer,
                                          "seed": seed, "init": init, "right": right, "wrong": wrong}, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
