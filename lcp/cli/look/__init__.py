"""`lcp look`: looks inside a model. One file a command; common.py is what they share."""

import typer

from lcp.cli.look.attention import attention
from lcp.cli.look.cache import cache
from lcp.cli.look.heads import heads
from lcp.cli.look.layers import layers
from lcp.cli.look.next import next_
from lcp.cli.look.quant import quant
from lcp.cli.look.swap import swap
from lcp.cli.look.tokens import tokens
from lcp.cli.look.without import without
from lcp.cli.look.words import words

ABOUT = "Look inside a model: follow a fact, see how a token is chosen, switch heads off."

app = typer.Typer(help=ABOUT, rich_markup_mode=None, no_args_is_help=True)
app.command("swap")(swap)
app.command("next")(next_)
app.command("without")(without)
app.command("layers")(layers)
app.command("heads")(heads)
app.command("attention")(attention)
app.command("quant")(quant)
app.command("cache")(cache)
app.command("tokens")(tokens)
app.command("words")(words)
