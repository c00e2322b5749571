"""Titles of conversations: what may stand in one, and what becomes of what a model says that is asked for one. Pure."""

from __future__ import annotations

import re
import unicodedata

from llmchat.attachment import FILLERS

MOST_TITLE_CHARACTERS = 200
"""Of any title, …"""
MOST_CHARACTERS = 60
"""… and of one that a model finds."""
JOINERS = "\u200c\u200d"
"""Not seen, and part of how words and emoji are written."""
BABBLE_CHARACTERS = 120
"""A line so long is no title."""
EXCERPT_CHARACTERS = 600
"""Of the prompt and of the answer, what a model is told that is asked for a title."""
REASONING = re.compile(
    r"<(think|thinking|thought|reasoning)>.*?(</\1>|\Z)|^.*?</(think|thinking)>", re.DOTALL | re.IGNORECASE
)
LABEL = re.compile(
    r"(?:(?:chat|conversation|short|suggested|the)\s+)*"
    r"(?:title|titel|titre|título|titulo|titolo|tytuł|заголовок|название|标题|標題|タイトル|제목)(?:\s+is)?\s*[:：]\s*",
    re.IGNORECASE,
)
MARKS = re.compile(r"#+\s+|>\s*|[-*+•]\s+|\d{1,2}[.)]\s+")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
PAIRS = {
    '"': '"', "'": "'", "“": "”", "‘": "’", "„": "“", "‚": "‘", "«": "»", "»": "«", "‹": "›", "「": "」", "『": "』",
    "《": "》", "〈": "〉", "【": "】", "(": ")", "[": "]", "*": "*", "_": "_", "`": "`", "~": "~", "”": "”", "’": "’",
}  # fmt: skip
STOPS = ".。．,;:：-–—"
QUESTION = (
    "You name chats. Give the chat below a title of two to six words, in the language that its message is written in. "
    "Answer with the title alone: no quotes, no full stop, no explanation."
)


def one_line(text: str) -> str:
    """Put a text on one line, without characters that are not seen and move, hide or stand for others."""
    return " ".join("".join(map(_seen, text)).split())


def _seen(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Cc" or kind[0] == "Z" or character in FILLERS:
        return " "
    return "" if kind == "Cs" or (kind == "Cf" and character not in JOINERS) else character


def has_word(text: str) -> bool:
    """Tell whether there is something to be seen in it."""
    return any(unicodedata.category(each)[0] not in "CMZ" and each not in FILLERS for each in text)


def cut(words: str, most: int) -> str:
    """Keep the beginning of a line, at most so many characters, up to the end of a word where it has several."""
    if len(words) <= most:
        return words
    kept = words[:most].rpartition(" ")[0] or words[: most - 1]
    return (kept.rstrip(" " + STOPS) or kept) + "…"


def question(prompt: str, answer: str) -> list[dict[str, str]]:
    """Ask a model for the title of a conversation that begins so."""
    told = f"Message:\n{_excerpt(prompt)}\n\nAnswer:\n{_excerpt(answer)}\n\nTitle of this chat:"
    return [{"role": "system", "content": QUESTION}, {"role": "user", "content": told}]


def _excerpt(text: str) -> str:
    text = text.strip()
    return text if len(text) <= EXCERPT_CHARACTERS else f"{text[:EXCERPT_CHARACTERS]} …"


def title_of(said: str) -> str:
    """Make a title of what a model said; "" where there is none in it."""
    told = REASONING.sub("", said).replace("\r", "\n")
    lines = (one_line(line) for line in told.split("\n") if not line.lstrip().startswith("```"))
    title = next(filter(None, map(_bare, lines)), "")
    if not any(each.isalnum() for each in title) or len(title) > BABBLE_CHARACTERS:
        return ""
    return cut(title, MOST_CHARACTERS)


def _bare(line: str) -> str:
    """Take from a line what stands around a title: quotes, marks of Markdown, the word for it, a full stop."""
    line, before = LINK.sub(r"\1", line).replace("**", "").replace("`", ""), ""
    while line != before:
        before = line
        for mark in (MARKS, LABEL):
            if found := mark.match(line):
                line = line[found.end() :]
        line = line.strip()
        if len(line) > 1 and PAIRS.get(line[0]) == line[-1]:
            line = line[1:-1].strip()
        if not line.endswith(("...", "…")):
            line = line.rstrip(" " + STOPS)
    return line
