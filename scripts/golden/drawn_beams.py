"""Beams that are drawn, by transformers' generate, where every draw takes the likeliest: torch.multinomial is replaced by topk.

What is left of chance is the rest: filters, scores, which beams go on and which are kept. Reads the checkpoints in the sibling
folder that families.py wrote: OUTDIR/../families.
"""

from pathlib import Path

import torch

from common import generator, output_folder, save_json
from families import VOCAB, load

NEW_TOKENS = 10
PROMPT_LENGTHS = (3, 8)
BASE = {"num_beams": 4, "num_return_sequences": 4, "do_sample": True}
# The first is what pyreft's commonsense task asks for, but for the end tokens.
SETTINGS = [
    {"temperature": 0.1, "top_p": 0.75, "top_k": 40, "early_stopping": True},
    {"temperature": 0.3, "top_p": 0.75, "top_k": 40, "early_stopping": True},
    {"temperature": 0.7, "top_k": 5}, {"temperature": 1.5, "top_k": 2}, {"top_k": 0, "top_p": 0.3},
    {"top_k": 0, "min_p": 0.9}, {"top_k": 0, "typical_p": 0.4}, {"top_k": 20, "top_p": 0.9, "min_p": 0.05, "temperature": 0.8},
    {"temperature": 0.7, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2}, {"length_penalty": 2.0, "temperature": 0.8},
    {"early_stopping": "never", "temperature": 1.2}, {"min_new_tokens": 4, "num_beams": 2, "num_return_sequences": 1},
]


def likeliest(probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
    return probabilities.topk(num_samples).indices


def generate(model, prompt: list[int], setting: dict, ends: list[int] | None) -> list[dict]:
    out = model.generate(
        torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, eos_token_id=ends, pad_token_id=0,
        return_dict_in_generate=True, output_scores=True, **(BASE | {"top_k": 50} | setting))
    lengths = (out.beam_indices >= 0).sum(1).tolist()
    return [{"ids": row[len(prompt):len(prompt) + n].tolist(), "score": round(score, 5)}
            for row, n, score in zip(out.sequences, lengths, out.sequences_scores.tolist())]


def case(models, setting: dict, n: int) -> dict:
    """The first prompt for which no rounding can change the ids."""
    for attempt in range(300):
        prompt = torch.randint(1, VOCAB, (n,), generator=generator(8000 * n + attempt)).tolist()
        free = generate(models[0], prompt, setting, None)[0]["ids"]
        ends = sorted({free[3], free[-1]}) if attempt % 2 else [free[-1]]
        found, exact = (generate(model, prompt, setting, ends) for model in models)
        scores = [row["score"] for row in found]
        if [r["ids"] for r in found] == [r["ids"] for r in exact] and all(
                a - b > 1e-3 for a, b in zip(scores, scores[1:])) and scores[-1] > -1e8:
            return {"setting": BASE | setting, "ends": ends, "prompt": prompt, "beams": found}
    raise SystemExit(f"no clear prompt of {n} tokens for {setting}")


def main() -> None:
    out = output_folder()
    torch.multinomial = likeliest
    families: Path = out.parent / "families"
    cases = {}
    for name in ("llama", "gpt2"):
        models = [load(families / name, dtype) for dtype in (torch.float32, torch.float64)]
        cases[name] = [case(models, setting, n) for setting in SETTINGS for n in PROMPT_LENGTHS]
    save_json(out / "drawn-beams.json", {"newTokens": NEW_TOKENS, "cases": cases}, indent=None)


if __name__ == "__main__":
    main()
