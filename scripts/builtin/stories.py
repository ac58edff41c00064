"""Little stories with places to fill, and how the built-in model learns to tell one from a vector at the last prompt token.

Large models do that of themselves: constants at one token hold whole paragraphs (arXiv 2404.03592). A small one has to be
shown that such a vector can mean something. Here every choice in a story has a vector of its own, learnt along with the model;
their sum, scaled, is added to the hidden state, and the story is the answer. The vectors of choices are thrown away
afterwards: what the model keeps is that it reads. Which vector tells a story is for an edit to find.
"""

import random
from dataclasses import dataclass

import torch

from facts import ANIMALS, COLOURED, COLOURS, COUNTRIES, DAYS, JOBS, TOOLS, sentence, with_article

PROMPTS = ("Tell me a story.", "Tell me a story", "Do you know a story?", "I want to hear a story.", "Tell a story, please.", "Make up a story.")

# What may stand in each place.
FILLERS = {
    "day": DAYS,
    "colour": list(COLOURS),
    "animal": [row[0] for row in ANIMALS],
    "city": [row[2] for row in COUNTRIES],
    "person": [row[1] for row in JOBS],
    "tool": [row[1] for row in TOOLS],
    "number": [str(n) for n in range(2, 21)],
    "things": ["stars", "cars", "boats", "keys", "pens", "lamps", "clocks", "cows", "dogs", "cats", "bees", "ducks", "frogs", "roses"],
    "mood": ["happy", "sad", "rich", "poor", "young", "old", "hot", "cold", "wet", "dry", "awake", "asleep", "loud", "quiet", "hungry", "tired"],
    "thing": [row[0] for row in COLOURED],
    "sound": [row[2] for row in ANIMALS if row[2] != "-"],
}

# The sentences in their order, each with the ways of saying it.
SENTENCES = (
    ("On {day} {colour} {animal} went to {city}.", "One {day} {colour} {animal} was in {city}.", "In {city} {colour} {animal} was born on {day}."),
    ("It met {person} and took {tool}.", "There {person} had {tool}.", "It got {tool} from {person}."),
    ("They saw {number} {things} and {thing}.", "Then {number} {things} ate {thing}.", "They put {thing} on {number} {things}."),
    ("That night they were {mood} and said {sound}.", "In the end all were {mood} and said {sound}.", "{sound}, said the {animal}, I am {mood}."),
)

Choice = tuple[str, str]


@dataclass(frozen=True)
class Story:
    text: str
    # What was chosen at each place: the ways of saying the sentences, and the fillers.
    choices: tuple[Choice, ...]


def all_choices() -> list[Choice]:
    ways = [(f"sentence {i}", str(way)) for i, ways in enumerate(SENTENCES) for way in range(len(ways))]
    return ways + [(slot, value) for slot, values in FILLERS.items() for value in values]


def draw(rng: random.Random) -> Story:
    fillers = {slot: rng.choice(values) for slot, values in FILLERS.items()}
    ways = [rng.randrange(len(ways)) for ways in SENTENCES]
    words = {**fillers, "colour": with_article(fillers["colour"])}
    text = " ".join(sentence(SENTENCES[i][way].format(**words)) for i, way in enumerate(ways))
    return Story(text, (*((f"sentence {i}", str(way)) for i, way in enumerate(ways)), *fillers.items()))


# At the outputs of these layers a vector may stand: the layers above have to read it.
LAYERS = (0, 1, 2)
# The length of a vector, about that of the states it is added to; how much longer or shorter it may be; and noise beside it.
LENGTH, SPREAD, NOISE = 8.0, 0.25, 0.15
# One story in so many is told without a vector, as it comes.
UNTOLD = 10
SYSTEM_LINES = ("You are a helpful assistant.", "Be helpful.")


@dataclass(frozen=True)
class Told:
    """Conversations that end with stories, the vector [D] that each is told from, and at which layer's output it is added."""

    conversations: list[list[dict[str, str]]]
    vectors: torch.Tensor
    layer: int


class StoryTeller(torch.nn.Module):
    """An endless, seeded stream of stories with their vectors."""

    def __init__(self, seed: int, size: int) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.places = {choice: place for place, choice in enumerate(all_choices())}
        self.choices = torch.nn.Embedding(len(self.places), size)

    def conversation(self, story: Story) -> list[dict[str, str]]:
        system = [{"role": "system", "content": self.rng.choice(SYSTEM_LINES)}] if self.rng.random() < 0.2 else []
        return [*system, {"role": "user", "content": self.rng.choice(PROMPTS)}, {"role": "assistant", "content": story.text}]

    def batch(self, count: int) -> Told:
        stories = [draw(self.rng) for _ in range(count)]
        places = torch.tensor([[self.places[choice] for choice in story.choices] for story in stories])
        vectors = LENGTH * torch.nn.functional.normalize(self.choices(places).sum(dim=1))
        vectors = vectors * (1 + SPREAD * (2 * torch.rand(count, 1) - 1))
        vectors = vectors + NOISE * LENGTH * torch.nn.functional.normalize(torch.randn_like(vectors))
        vectors = vectors * (torch.rand(count, 1) >= 1 / UNTOLD)
        return Told([self.conversation(story) for story in stories], vectors, self.rng.choice(LAYERS))
