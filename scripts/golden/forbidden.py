"""Answers by transformers' generate where tokens are forbidden, greedy and by beams; and what its processors do to logits.

Reads the checkpoints in the sibling folder that families.py wrote: OUTDIR/../families.
"""

from pathlib import Path

import torch
from transformers import GenerationConfig

from common import generator, normal, numbers, output_folder, save_json
from families import VOCAB, load

NEW_TOKENS = 20
PROMPT_LENGTHS = [1, 4, 9]
CASES = ["llama", "gpt2", "qwen3", "mistral"]
SETTINGS = [
    {"no_repeat_ngram_size": 1}, {"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 3},
    {"no_repeat_ngram_size": 2, "repetition_penalty": 1.3}, {"suppress": 6}, {"suppress": 3, "min_new_tokens": 8},
    {"bad_words": True}, {"bad_words": True, "no_repeat_ngram_size": 3, "suppress": 2},
]
BEAMS = {"num_beams": 3, "num_return_sequences": 3}
SMALLEST_GAP = 2e-3


def generate(model, prompt: list[int], options: dict, end: int | None):
    return model.generate(
        torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=end, pad_token_id=0,
        return_dict_in_generate=True, output_scores=True, **options)


def options_of(setting: dict, free: list[int], end: int | None) -> dict:
    """What is forbidden is what the answer would have been: single tokens, pairs and the end token, which cannot be."""
    options = {key: value for key, value in setting.items() if key not in ("suppress", "bad_words")}
    if "suppress" in setting:
        options["suppress_tokens"] = sorted(set(free))[:setting["suppress"]]
    if "bad_words" in setting:
        options["bad_words_ids"] = [[free[0]], free[1:3], free[4:7], [free[5]]] + ([] if end is None else [[end]])
    return options


def greedy(models, prompt: list[int], setting: dict) -> dict | None:
    free = generate(models[0], prompt, {}, None).sequences[0, len(prompt):].tolist()
    # An end token, so that minNewTokens and the one bad word that is no bad word mean something.
    end = free[6] if "bad_words" in setting or "min_new_tokens" in setting else None
    options = options_of(setting, free, end)
    out, exact = (generate(m, prompt, options, end) for m in models)
    best = torch.stack([s[0].topk(2).values for s in out.scores])
    if not torch.equal(out.sequences, exact.sequences) or (best[:, 0] - best[:, 1]).min() < SMALLEST_GAP:
        return None
    return {"options": options, "end": end, "prompt": prompt, "ids": out.sequences[0, len(prompt):].tolist(), "free": free}


def beams(models, prompt: list[int], setting: dict) -> dict | None:
    free = generate(models[0], prompt, {}, None).sequences[0, len(prompt):].tolist()
    end = free[6]
    options = options_of(setting, free, end) | BEAMS
    found = []
    for model in models:
        out = generate(model, prompt, options, end)
        lengths = (out.beam_indices >= 0).sum(1).tolist()
        found.append([{"ids": row[len(prompt):len(prompt) + n].tolist(), "score": round(score, 6)}
                      for row, n, score in zip(out.sequences, lengths, out.sequences_scores.tolist())])
    scores = [row["score"] for row in found[0]]
    if [r["ids"] for r in found[0]] != [r["ids"] for r in found[1]] or any(
            a - b < 2e-4 for a, b in zip(scores, scores[1:])):
        return None
    return {"options": options, "end": end, "prompt": prompt, "beams": found[0]}


def clear(search, models, setting: dict, n: int) -> dict:
    """The first prompt for which no rounding can change the answer."""
    for attempt in range(200):
        prompt = torch.randint(1, VOCAB, (n,), generator=generator(7000 * n + attempt)).tolist()
        found = search(models, prompt, setting)
        if found is not None:
            return found
    raise SystemExit(f"no clear prompt of {n} tokens for {setting}")


def probabilities(model) -> dict:
    """Logits of one step → probabilities, as in generate.py."""
    logits = normal((50,), 7, 2.5)
    # Pairs and triples that began before end with 3 and 9 3.
    context = [9, 3, 21, 3, 9, 3, 40, 4, 9, 3]
    settings = [
        {"no_repeat_ngram_size": 1}, {"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 3},
        {"no_repeat_ngram_size": 4}, {"no_repeat_ngram_size": 11}, {"suppress_tokens": [0, 7, 49]},
        {"bad_words_ids": [[5], [3, 8], [9, 3, 6], [4, 3, 2], [1] * 12]},
        {"typical_p": 0.95}, {"typical_p": 0.5}, {"typical_p": 0.2}, {"typical_p": 0.01},
        {"temperature": 1.7, "top_k": 30, "top_p": 0.9, "typical_p": 0.6}, {"min_p": 0.05, "typical_p": 0.8},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "bad_words_ids": [[5], [3, 8]], "suppress_tokens": [7],
         "temperature": 0.8, "top_k": 12},
    ]
    rows = []
    for setting in settings:
        config = GenerationConfig(do_sample=True, **{"top_k": 0} | setting)
        model._prepare_special_tokens(config, False, device="cpu")
        chain = model._get_logits_processor(generation_config=config, input_ids_seq_length=len(context))
        scores = chain(torch.tensor([context]), logits[None].clone())
        rows.append({"settings": setting, "order": [type(p).__name__ for p in chain],
                     "probabilities": numbers(scores.softmax(-1))})
    return {"logits": numbers(logits), "context": context, "cases": rows}


def main() -> None:
    out = output_folder()
    families: Path = out.parent / "families"
    cases = {}
    for name in CASES:
        models = [load(families / name, dtype) for dtype in (torch.float32, torch.float64)]
        cases[name] = {
            "greedy": [clear(greedy, models, s, n) for s in SETTINGS for n in PROMPT_LENGTHS],
            "beams": [clear(beams, models, s, n) for s in SETTINGS for n in PROMPT_LENGTHS],
        }
        changed = sum(c["ids"] != c.pop("free") for c in cases[name]["greedy"])
        print(name, f"{changed} of {len(cases[name]['greedy'])} answers are not what they were")
    save_json(out / "forbidden.json", {
        "newTokens": NEW_TOKENS, "cases": cases, "probabilities": probabilities(load(families / "llama"))}, indent=None)


if __name__ == "__main__":
    main()
