"""English-like text in which the three behaviours occur among other sentences.

Every sentence is drawn from a seeded generator. A sentence that begins with a clean prompt of the
tasks' validation or test split is never drawn: the split is asked of the prompt, as the tasks do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from tasks import greater_than, ioi, sva
from tasks.splits import split_of

SHARES = {"ioi": 0.40, "years": 0.22, "agreement": 0.23, "plain": 0.15}

_ADJECTIVES = """
dusty new red blue green small large quiet loud beautiful famous strange busy happy sad tired late
clean heavy light warm cold bright dark cheap rare
"""
ADJECTIVES = tuple(_ADJECTIVES.split())
_ADVERBS = """
today yesterday again slowly quickly often once there quietly gladly soon twice
"""
ADVERBS = tuple(_ADVERBS.split())
_PLURAL_OBJECTS = """
books letters flowers pictures stories songs apples horses plates coins chairs stones
"""
PLURAL_OBJECTS = tuple(_PLURAL_OBJECTS.split())
CENTURIES = tuple(str(century) for century in range(11, 20))
MEAN_DURATION = 9.0  # years; durations thin out exponentially

OTHER_GIVING = (
    "In the morning {first} and {second} walked to the {place}, where {subject} gave a {object} to",
    "Because {first} and {second} like the {place}, {subject} bought a {object} for",
    "{first} saw {second} at the {place}. {subject} handed a {adjective} {object} to",
    "{first} called {second} from the {place}, and then {subject} sent a {object} to",
    "When {first} met {second} near the {place}, {subject} showed a {adjective} {object} to",
    "{first} and {second} are friends. At the {place} {subject} often talks to",
    "{first} and {second} went home. {subject} said goodbye to",
    "On the way to the {place}, {first} and {second} were tired, but {subject} sang a song for",
)
AFTER_GIVING = (".", ".", ".", " and smiled.", " and went home.", " at the {place}.", " {adverb}.")
OTHER_YEARS = (
    "The {noun} began in the year {start} and ended in the year {century}",
    "The {adjective} {noun} went on from {start} to {century}",
    "{name} lived near the {place} from {start} to {century}",
    "In {start} the {noun} began, and it was over by {century}",
    "Between {start} and {century}",
)
RELATIONS = ("a friend of", "the neighbor of", "who knows", "who works with")
GIVING_AGAIN = (
    ". {subject} gave a {object} to",
    ". Then {subject} handed a {adjective} {object} to",
    ", and {subject} showed the {object} to",
    ". Later {subject} sent {number} {things} to",
    ", but {subject} offered a {adjective} {object} to",
)
AFTER_YEARS = {"Between": " there was a {noun}."}
PLAIN = (
    "{name} likes the {adjective} {object}.",
    "{name} has a {adjective} {object} and {number} {things}.",
    "{name} saw {number} {things} in the {place} {adverb}.",
    "The {place} was {adjective} and the {adjective} {object} was lost.",
    "There is a {adjective} {object} in the {place}.",
    "There are {number} {things} near the {place}.",
    "{name} and {name2} are reading about the {noun} of {start}.",
    "{name} was born in the year {start}.",
    "It was a {adjective} day, and {name} went to the {place} {adverb}.",
    "In the {place} {name} told {name2} about the {adjective} {noun}.",
    "Everyone in this town knows {name} and the {adjective} {object}.",
    "{name} lost a {object} {adverb}, so {name2} found a new {object2}.",
    "{name} sings {adverb} when {name} is {adjective}.",
    "The {noun} was {adjective}, and {name} wrote {number} {things} about it.",
)
NUMBERS = ("two", "three", "four", "five", "six", "ten", "many", "few")


@dataclass(frozen=True)
class Sentence:
    """A text, and where in it stand the words that what precedes them makes predictable.

    ``prompt`` is the text before the first of them; ``answers`` are positions of characters.
    """

    text: str
    answers: tuple[int, ...] = ()

    @property
    def prompt(self) -> str:
        """The text before the first answer, or all of it."""
        return self.text[: self.answers[0]].rstrip() if self.answers else self.text

    def after(self, other: Sentence) -> Sentence:
        """Return the two sentences in a row, the answers of this one kept."""
        shift = len(other.text) + 1
        return Sentence(f"{other.text} {self.text}", tuple(a + shift for a in self.answers))

    @classmethod
    def of(cls, *parts: str) -> Sentence:
        """Join parts of which every second one is an answer."""
        answers, text = [], ""
        for index, part in enumerate(parts):
            if index % 2:
                answers.append(len(text) + len(part) - len(part.lstrip()))
            text += part
        return cls(text, tuple(answers))


def _words(random: Random) -> dict[str, str]:
    name, name2 = random.sample(ioi.NAMES, 2)
    thing, thing2 = random.sample(ioi.OBJECTS, 2)
    return {
        "name": name,
        "name2": name2,
        "place": random.choice(ioi.PLACES),
        "object": thing,
        "object2": thing2,
        "things": random.choice(PLURAL_OBJECTS),
        "number": random.choice(NUMBERS),
        "noun": random.choice(greater_than.NOUNS),
        "adjective": random.choice(ADJECTIVES),
        "adverb": random.choice(ADVERBS),
        "start": f"{random.choice(CENTURIES)}{random.randrange(100):02d}",
    }


def giving(random: Random) -> Sentence:
    """One of two people gives to the other, and perhaps again; rarely a third one gives."""
    words = _words(random)
    one, other, third, words["name"] = random.sample(ioi.NAMES, 4)
    own_template = random.random() < 0.6
    template = random.choice(ioi.TEMPLATES if own_template else OTHER_GIVING)
    # a name between the giver and the receiver, so that the nearest name need not be the giver's
    interrupted = random.random() < 0.3
    # a giver who was not named before leaves the receiver open between the two who were
    giver = other if random.random() < 0.95 else third
    first, second = random.sample((one, other), 2)
    subject = f"{giver}, {random.choice(RELATIONS)} {words['name']}," if interrupted else giver
    parts = [template.format(first=first, second=second, subject=subject, **words), f" {one}"]
    for _ in range(0 if interrupted else random.choice((0, 0, 1, 2))):
        giver, receiver = random.sample((one, other), 2)
        again = random.choice(GIVING_AGAIN).format(subject=giver, **_words(random))
        parts += [again, f" {receiver}"]
    return Sentence.of(*parts, random.choice(AFTER_GIVING).format(**words))


def _later_year(random: Random, year: int) -> int:
    """Draw a year after this one in the same century, mostly soon after."""
    longest = 99 - year
    share = random.random() * (1 - math.exp(-longest / MEAN_DURATION))
    return year + min(longest, 1 + int(-MEAN_DURATION * math.log(1 - share)))


def years(random: Random) -> Sentence:
    """Something lasts from one year to a later one of the same century."""
    words = _words(random)
    century, year = random.choice(CENTURIES), random.randrange(99)
    own_template = random.random() < 0.6
    if own_template:
        century = "17" if random.random() < 0.6 else century
        prompt = greater_than.TEMPLATE.replace("17", century).format(
            noun=words["noun"], year=f"{year:02d}"
        )
    else:
        words["start"] = f"{century}{year:02d}"
        prompt = random.choice(OTHER_YEARS).format(century=century, **words)
    rest = AFTER_YEARS.get(prompt.split()[0], ".").format(**words)
    return Sentence.of(prompt, f"{_later_year(random, year):02d}", rest)


def agreement(random: Random) -> Sentence:
    """A subject, mostly a phrase with another noun, and a verb in the subject's number."""
    subject, attractor = random.sample(sva.NOUNS, 2)
    plural, attractor_plural = random.random() < 0.5, random.random() < 0.5
    opening = random.choice(sva.OPENINGS)
    if random.random() < 0.8:
        phrase = random.choice(sva.PHRASES)
        prompt = f"{opening} {subject[plural]} {phrase} {attractor[attractor_plural]}"
    else:
        adjective = random.choice(ADJECTIVES) + " " if random.random() < 0.5 else ""
        prompt = f"{opening} {adjective}{subject[plural]}"
    verb = random.choice(sva.VERBS)[plural]
    been = " been" if verb.strip() in ("has", "have") else ""
    return Sentence.of(prompt, verb, f"{been} {random.choice(ADJECTIVES)}.")


def plain(random: Random) -> Sentence:
    """A sentence that asks for none of the behaviours."""
    return Sentence(random.choice(PLAIN).format(**_words(random)))


KINDS: dict[str, Callable[[Random], Sentence]] = {
    "ioi": giving,
    "years": years,
    "agreement": agreement,
    "plain": plain,
}


def sentences(seed: str, split: str = "train") -> Iterator[Sentence]:
    """Yield sentences without end; those with an answer have a prompt of the split asked for.

    Half of them come after a plain sentence with names of its own, so that sentences begin in
    different places.
    """
    random = Random(seed)
    kinds, shares = list(SHARES), list(SHARES.values())
    while True:
        [kind] = random.choices(kinds, shares)
        sentence = KINDS[kind](random)
        if sentence.answers and split_of(sentence.prompt) != split:
            continue
        yield sentence.after(plain(random)) if random.random() < 0.5 else sentence


def vocabulary(n_sentences: int = 60_000) -> list[str]:
    """Return every text that the vocabulary must cover: the tasks' words and the corpus's."""
    drawn = sentences("vocabulary")
    texts = [next(drawn).text for _ in range(n_sentences)]
    everything = [
        *ioi.NAMES,
        *ioi.PLACES,
        *ioi.OBJECTS,
        *greater_than.NOUNS,
        *greater_than.YEARS,
        *(form for forms in (*sva.NOUNS, *sva.VERBS) for form in forms),
        *map(str, range(10)),
    ]
    return texts + everything
