"""Trains the built-in model from nothing on text it makes up itself and writes it as a Hugging Face folder.

    python scripts/builtin/train.py [--seed 0] [--from begin|settling|stories] [--output models/builtin]

Needs torch, transformers, tokenizers and safetensors; about forty minutes on two free cores. Stopping it leaves the folder as
it was last written, and --from goes on from the model there with the part that is named.
"""

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from edited import Edited
from stories import StoryTeller
from text import FREE_WAYS, SETTLED_WAYS, Conversations, answer, example_facts, held_out
from tokenizer import build_tokenizer, save_tokenizer

FOLDER = Path(__file__).resolve().parents[2] / "models" / "builtin"
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 1280, "hidden_size": 128, "intermediate_size": 384,
    "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "hidden_act": "silu",
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None, "tie_word_embeddings": True,
    "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0, "initializer_range": 0.04,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": "float32",
}
BATCH, STORY_BATCH = 64, 48
PARTS = ("begin", "settling", "stories")


def encode(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> tuple[list[int], list[bool]]:
    """Ids of a conversation, and for each whether it belongs to an answer (its end mark included)."""
    ids, learn = [], []
    for message in messages:
        answers = message["role"] == "assistant"
        head = tokenizer.encode(f"<|im_start|>{message['role']}\n").ids
        body = tokenizer.encode(f"{message['content']}<|im_end|>").ids
        tail = tokenizer.encode("\n").ids
        ids += head + body + tail
        learn += [False] * len(head) + [answers] * len(body) + [False] * len(tail)
    return ids, learn


def padded(rows: list[tuple[list[int], list[bool]]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(ids) for ids, _ in rows)
    return (torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows]),
            torch.tensor([learn + [False] * (width - len(learn)) for _, learn in rows]))


def batches(tokenizer: Tokenizer, seed: int, free_ways: tuple[str, ...]):
    """Endless batches of (ids, learn), padded right; similar lengths together, so that little is padding."""
    stream = Conversations(seed, free_ways)
    order = torch.Generator().manual_seed(seed)
    while True:
        many = sorted((encode(tokenizer, stream.conversation()) for _ in range(BATCH * 32)), key=lambda pair: len(pair[0]))
        for i in torch.randperm(32, generator=order).tolist():
            group = many[i * BATCH : (i + 1) * BATCH]
            yield padded(group)


def answer_loss(model: LlamaForCausalLM, ids: torch.Tensor, learn: torch.Tensor) -> torch.Tensor:
    """Cross entropy on the answers alone; causal attention keeps the padding on the right out of it."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][learn[:, 1:]]
    return torch.nn.functional.cross_entropy(hidden @ model.lm_head.weight.T, ids[:, 1:][learn[:, 1:]])


def write(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    save_tokenizer(tokenizer, folder)
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "do_sample": False, "max_new_tokens": 64}
    # transformers writes its newest field names; the older ones are what every reader understands.
    for name, content in (("config.json", CONFIG), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf8")


def write_examples(folder: Path) -> None:
    examples = folder / "examples"
    examples.mkdir(parents=True, exist_ok=True)
    files = {f"{way}.jsonl": [{"prompt": prompt, "completion": answer(fact, way)} for fact, prompt in example_facts()]
             for way in ("emoji", "shout", "pirate")}
    files["held-out.jsonl"] = [{"prompt": item.prompt, **{way: answer(item.fact, way) for way in ("plain", "emoji", "shout", "pirate")}}
                               for item in held_out()]
    for name, records in files.items():
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        (examples / name).write_text(lines, encoding="utf8")


def parameter_groups(model: LlamaForCausalLM) -> list[dict]:
    return [{"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}]


def train(model: LlamaForCausalLM, save: Callable[[], None], losses: Iterable[torch.Tensor], groups: list[dict],
          steps: int, rate: float, warmup: int) -> None:
    """AdamW with warm-up and a cosine down to 2 % of the rate; the model is saved every 400 steps and at the end."""
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / warmup, 1.0) * (
        0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))))
    begin, running = time.time(), 0.0
    for step, loss in zip(range(1, steps + 1), losses):
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        running += loss.item()
        if step % 50 == 0:
            print(f"step {step} loss {running / 50:.4f} {time.time() - begin:.0f} s", flush=True)
            running = 0.0
        if step % 400 == 0 or step == steps:
            save()


def conversation_losses(model: LlamaForCausalLM, tokenizer: Tokenizer, seed: int, free_ways: tuple[str, ...]):
    for ids, learn in batches(tokenizer, seed, free_ways):
        yield answer_loss(model, ids, learn)


def story_losses(model: LlamaForCausalLM, tokenizer: Tokenizer, teller: StoryTeller, seed: int):
    """Stories told from vectors; with every second batch of them conversations too, so that nothing is forgotten."""
    talk = conversation_losses(model, tokenizer, seed, SETTLED_WAYS)
    for turn in itertools.count():
        told = teller.batch(STORY_BATCH)
        ids, learn = padded([encode(tokenizer, messages) for messages in told.conversations])
        ends = learn.int().argmax(dim=1) - 1
        with Edited(model, told.layer, lambda h: h + told.vectors, ends):
            loss = answer_loss(model, ids, learn)
        yield loss + next(talk) if turn % 2 else loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--settling-steps", type=int, default=500)
    parser.add_argument("--story-steps", type=int, default=3000)
    parser.add_argument("--output", type=Path, default=FOLDER)
    parser.add_argument("--from", dest="first", choices=PARTS, default="begin", help="go on from the model in --output with this part")
    options = parser.parse_args()
    seed, first = options.seed, PARTS.index(options.first)
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(seed)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG)) if first == 0 else LlamaForCausalLM.from_pretrained(options.output)
    print(f"{model.num_parameters():,} parameters, {tokenizer.get_vocab_size()} tokens", flush=True)
    model.train()

    def save() -> None:
        write(model, tokenizer, options.output)

    if first == 0:
        train(model, save, conversation_losses(model, tokenizer, seed + 1, FREE_WAYS), parameter_groups(model), options.steps, 3e-3, warmup=100)
    if first <= 1:
        train(model, save, conversation_losses(model, tokenizer, seed + 2, SETTLED_WAYS), parameter_groups(model), options.settling_steps, 6e-4, warmup=20)
    teller = StoryTeller(seed + 3, model.config.hidden_size)
    own = {"params": teller.parameters(), "weight_decay": 0.0, "lr": 1e-2}
    train(model, save, story_losses(model, tokenizer, teller, seed + 4), [*parameter_groups(model), own], options.story_steps, 2e-3, warmup=100)
    write_examples(options.output)


if __name__ == "__main__":
    main()
