"""Which files Python's `datasets` takes for which split and config, of folders laid out in the ways that the hub's data sets are."""

import json
import tempfile
from pathlib import Path

from datasets import get_dataset_config_names, load_dataset_builder

from common import output_folder, save_json

ROW = {"json": '[{"a": 1}]\n', "jsonl": '{"a": 1}\n', "csv": "a\n1\n", "tsv": "a\n1\n"}


def card(configs: list) -> str:
    return "---\n" + json.dumps({"license": "mit", "configs": configs}) + "\n---\n# A card\n"


DESCRIPTIONS = {"config.json", "dataset_infos.json"}

# Files by name; a card of configs where there is one.
LAYOUTS = {
    "one file": (["rows.jsonl"], None),
    "files by split": (["train.csv", "test.csv", "extra.txt"], None),
    "files by words": (["my-train_0.jsonl", "my-train_1.jsonl", "dev.jsonl", "evaluation.jsonl", "devices.jsonl"], None),
    "sharded": (["data/train-00000-of-00002.json", "data/train-00001-of-00002.json", "data/odd-00000-of-00001.json"], None),
    "folders by split": (["train/a.jsonl", "train/deep/b.jsonl", "validation/a.jsonl", "top.jsonl"], None),
    "data by split": (["data/training/a.json", "data/val/a.json", "data/other/a.json"], None),
    "folders of words": (["my_test_set/a.csv", "a-train/a.csv"], None),
    "hidden": ([".cache/train.csv", "train.csv", "__pycache__/train.csv", ".train.csv"], None),
    "descriptions": (["train.json", "config.json", "dataset_infos.json"], None),
    "formats": (["train.json", "train.csv", "test.json"], None),
    "card with one config": (["a/x.jsonl", "b/y.jsonl"], card([{"config_name": "only", "data_files": "a/*.jsonl"}])),
    "card with splits": (
        ["main/train-00000-of-00001.json", "main/test-00000-of-00001.json", "socratic/train-00000-of-00001.json"],
        card([
            {"config_name": "main", "data_files": [
                {"split": "train", "path": "main/train-*"}, {"split": "test", "path": "main/test-*"}]},
            {"config_name": "socratic", "data_files": [{"split": "train", "path": ["socratic/train-*"]}]}])),
    "card with a default": (
        ["a/train.jsonl", "a/test.jsonl", "b/c/dev.jsonl", "b/train.jsonl"],
        card([{"config_name": "first", "data_dir": "a"}, {"config_name": "second", "data_dir": "b", "default": True}])),
    "card with patterns": (
        ["x/1a.csv", "x/2b.csv", "x/3c.csv", "x/y/4d.csv", "z.csv"],
        card([
            {"config_name": "deep", "data_files": "x/**"},
            {"config_name": "flat", "data_files": ["x/[12]?.csv"]},
            {"config_name": "not", "data_files": "x/[!1-2]*"},
            {"config_name": "default", "data_files": [{"split": "train", "path": "**/*.csv"}]}])),
}


def record(files: list[str], text: str | None) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        for name in files:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}" if name in DESCRIPTIONS else ROW.get(name.split(".")[-1], ""))
        if text is not None:
            (root / "README.md").write_text(text)
        usual = load_dataset_builder(folder).config.name if text is None or "default" in text else None
        configs = {}
        for name in get_dataset_config_names(folder):
            found = load_dataset_builder(folder, name).config.data_files
            configs[name] = {
                str(split): sorted(str(Path(path).relative_to(root)) for path in paths) for split, paths in found.items()}
    return {"files": files, "card": text, "usual": usual, "configs": configs}


if __name__ == "__main__":
    out = output_folder()
    save_json(out / "layouts.json", {name: record(*layout) for name, layout in LAYOUTS.items()})
