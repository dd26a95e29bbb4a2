"""Prompts that ask a language model for a biography (paper, appendix A.1), in this project's own words.

A prompt gives a number of words, a name, and the facts in four groups; every draft draws their order and wording anew.
"""

from collections.abc import Sequence
from random import Random

from ktrain.bior.mentions import Facts
from ktrain.config import ATTRIBUTES, WriterConfig

BIRTHDAY = ("The birthday is {birth_date}.", "Born on {birth_date}.")
BIRTHPLACE = (
    "The birth city is {birth_city}.",
    "The place of birth is {birth_city}.",
    "Born in {birth_city}.",
    "The hometown is {birth_city}.",
    "This is a native of {birth_city}.",
    "Life began in {birth_city}.",
)
SCHOOLS = (
    "University: {university}.",
    "Studied at {university}.",
    "Graduated from {university}.",
    "Attended {university}.",
    "Was educated at {university}.",
    "The alma mater is {university}.",
    "Has a degree from {university}.",
)
SUBJECTS = ("The major was {major}.", "The field of study was {major}.", "Majored in {major}.", "Studied {major}.")
JOBS = (
    "Works for {company} in {company_city}.",
    "Works at {company}, in {company_city}.",
    "Has a job with {company}, based in {company_city}.",
    "Is employed by {company} in {company_city}.",
    "The employer is {company} and the place of work {company_city}.",
    "The workplace is at {company} in {company_city}.",
    "Is on the staff of {company}, which is in {company_city}.",
    "Joined {company} in {company_city}.",
    "Earns a living at {company}, in {company_city}.",
    "The career led to {company} in {company_city}.",
    "Has an office at {company} in {company_city}.",
    "{company} is the employer, {company_city} the city.",
    "Is part of {company}, in {company_city}.",
)
ASK = "Write a {words}-word biography about a person whose name is {name}."
RULES = (
    "Begin with the full name or mention it in the first sentence, and use every fact exactly as it is written here. "
    "Name no other date, city, university, subject, company or person. Answer with one paragraph and nothing else."
)
CREATIVE = "Be creative: put the facts in an order of your own, join some of them, and vary the sentences."


def build_prompt(facts: Facts, writer: WriterConfig, rng: Random) -> str:
    """The prompt for one draft, a pure function of the arguments and the state of `rng`."""
    values = dict(zip(ATTRIBUTES, facts.values, strict=True))
    studies = f"{_choose(SCHOOLS, rng)} {_choose(SUBJECTS, rng)}"
    groups = [_choose(BIRTHDAY, rng), _choose(BIRTHPLACE, rng), studies, _choose(JOBS, rng)]
    for k in range(len(groups) - 1, 0, -1):
        other = int(rng.random() * (k + 1))
        groups[k], groups[other] = groups[other], groups[k]
    instructions = [RULES, CREATIVE] if writer.prompt == "creative" else [RULES]
    request = ASK.format(words=writer.words, name=facts.name)
    return " ".join([request, *(group.format(**values) for group in groups), *instructions])


def _choose(choices: Sequence[str], rng: Random) -> str:
    return choices[int(rng.random() * len(choices))]
