"""Prompts of plain words, drawn by seed: the same for every server, new for every round.

Were a prompt's words used twice, a server that keeps prompts would answer the second from its cache.
"""

import random

COMMON = """
apple autumn baker basket bicycle bird boat book bottle bread bridge butter candle castle cat chair cheese
church city cloud coat coffee corner cotton country cow dance desk dinner doctor dog door dream dust ear earth
egg engine evening family farm father field finger fire fish floor flower forest friend fruit garden glass
gold grass hand harbor hat heart hill honey horse house island jacket kitchen lake lamp leaf letter library
light machine map market meadow milk mirror moon morning mother mountain music needle night ocean orange paint
paper park pencil piano picture plate pocket queen rain river road rock roof room rose salt school sea shadow
sheep ship shoe silver snow song spring stone storm story street sugar summer sun table teacher tower town
train tree valley village violin wall watch water wheel wind window winter wood wool
"""


class Words:
    """Draws words. Two with the same seed draw the same."""

    def __init__(self, *seed: object) -> None:
        self._common = COMMON.split()
        self._random = random.Random("/".join(map(str, seed)))

    def draw(self, count: int) -> str:
        return " ".join(self._random.choices(self._common, k=count))

    def seed(self) -> int:
        """For a request's sampling."""
        return self._random.randrange(2**31)
