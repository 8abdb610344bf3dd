"""The inference loop: messages to tokens, tokens to logits, logits to a token, its bytes to text,
until something ends the answer. It runs on the engine thread.
"""

import functools
import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

from lcp.answers import repetition
from lcp.answers.output_parser import OutputParser
from lcp.answers.thinking_tag_table import NONE, tags
from lcp.engine import llguidance_matcher
from lcp.engine.constrained_sampling import ConstrainedSampler, Matcher
from lcp.engine.context import Context, Stopped
from lcp.engine.drafting import DraftControl
from lcp.engine.gbnf_matcher import GbnfMatcher
from lcp.engine.llama_library import StopByte
from lcp.engine.llguidance_matcher import LlguidanceMatcher, Vocabulary
from lcp.engine.model import Model
from lcp.engine.prompt import PromptWriter
from lcp.engine.proposals import Proposals
from lcp.engine.reply import ReplyBuilder, tag_tokens, tokens_begun
from lcp.engine.sampler import Sampler
from lcp.engine.thinking_budget import ThinkingBudget
from lcp.engine_interface import Constraint, Progress, Reply, Request
from lcp.engine_notices import NoTokenFits
from lcp.errors import ContextFull
from lcp.worker import Emit


class Answering:
    """Generates one answer after another with a model and its context."""

    def __init__(
        self, model: Model, context: Context, writer: PromptWriter, stop: StopByte
    ) -> None:
        self._model = model
        self._context = context
        self._writer = writer
        self._stop = stop
        self._tags = tags(writer.template.source, model.is_special)
        # An end mark that is not a token of the vocabulary works as a stop string.
        self._marks = tuple(m for m in writer.template.end_marks if not model.is_end_text(m))
        self._shown = tag_tokens(model, (*self._tags.all, *self._marks))
        self._control = DraftControl()

    def prepare(self, constraint: Constraint) -> None:
        """Prepare what answers with this constraint need."""
        if constraint.kind != "grammar":
            _ = self.tokenizer

    def run(self, reply: Reply, request: Request, emit: Emit) -> None:
        """Generate the reply; emits Progress and Chunks."""
        with ExitStack() as stack:
            self._run(reply, request, emit, stack)

    def _run(self, reply: Reply, request: Request, emit: Emit, stack: ExitStack) -> None:
        context, model = self._context, self._model
        # 1) Messages to tokens, then the tokens of an answer to continue.
        prompt = self._writer.write(request.messages)
        marks, known = ((), NONE) if prompt.raw else (self._marks, self._tags)
        if request.constraint:  # it decides where the answer ends
            marks = ()
        parser = OutputParser((*request.stop, *marks), prompt.tail, known)
        builder = ReplyBuilder(reply, parser, model, self._shown, emit)
        begun = tokens_begun(request.begun, model)
        budget = ThinkingBudget(request.thinking_tokens, model, parser, builder)
        guide = None
        if request.constraint:
            matcher = self._new_matcher(request.constraint)
            stack.enter_context(closing(matcher))
            guide = ConstrainedSampler(matcher, model, parser, self._shown)
        builder.resume(guide.follow(begun) if guide else begun)
        wanted = prompt.tokens + builder.tokens
        progress = Progress(0, 0, 0, len(wanted))
        builder.clock.reading = builder.clock.now()
        proposals = None
        try:
            # 2) Evaluate the tokens that are not in the KV cache.
            for progress in context.feed(wanted, prompt.boundary, request.move):
                emit(progress)
                if self._stop.is_set():
                    raise Stopped
            builder.clock.read = builder.clock.now()
            sampler = Sampler(model, request.sampling, reply.seed, wanted)
            stack.enter_context(closing(sampler))
            choice = TokenChoice(context, sampler, budget, guide)
            control = self._control if request.speculate else None
            proposals = Proposals(context, control, model.is_end)
            ended = self._decode(choice, proposals, builder, request)
            if ended == "stop" and parser.stopped in marks:
                ended = "end"
        except Stopped:
            ended = "interrupted"
        builder.finish(ended, len(wanted), progress)
        if proposals:
            proposals.take_back()
            drafted, accepted = proposals.drafted, proposals.kept
            reply.stats = replace(reply.stats, drafted=drafted, accepted=accepted)
        reply.stats = replace(reply.stats, ctx_used=len(context.tokens), ctx_size=context.size)
        if context.stays and not reply.notice:
            reply.notice, context.stays = context.stays, None

    def _new_matcher(self, constraint: Constraint) -> Matcher:
        """The matcher of one answer."""
        if constraint.kind == "grammar":
            return GbnfMatcher(constraint, self._model)
        return LlguidanceMatcher(constraint, self._model, self.tokenizer)

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The model's vocabulary for llguidance; building it takes a moment."""
        return llguidance_matcher.tokenizer(Vocabulary(self._model))

    def _decode(
        self, choice: "TokenChoice", proposals: Proposals, builder: ReplyBuilder, request: Request
    ) -> str:
        """The inference loop. Returns why it ended."""
        most = request.max_tokens or sys.maxsize
        # A stop string may end the answer in the middle of forced tokens.
        batches = self._context.takes_back_freely or not request.stop
        while True:
            if choice.complete:
                return "end"
            # 3) Take the forced token, or sample one from the logits of the last token.
            token = choice.next(proposals.row)
            if token is None:
                builder.notice(NoTokenFits(choice.why))
                return "length"
            if self._model.is_end(token):
                return "end"
            # 4) Its bytes become text.
            if not builder.append(token):
                return "stop"
            if builder.new == request.max_tokens:
                return "length"
            if self._stop.is_set():
                return "interrupted"
            if request.loop_guard and builder.new % repetition.EVERY == 0:
                fresh = builder.tokens[-builder.new :]
                size = repetition.period(fresh)
                if size > choice.forced_in_a_row:  # the model chose some of the cycle
                    builder.notice(repetition.repetition(fresh, size))
                    return "length"
            # 5) Evaluate it, in one batch with proposed tokens. This gives the next logits.
            try:
                forced = choice.forced() if batches else []
                proposals.add(token, forced, most - builder.new - 1)
            except ContextFull:
                return "full"


class TokenChoice:
    """Chooses each token of one answer: a forced or a sampled one."""

    def __init__(
        self,
        context: Context,
        sampler: Sampler,
        budget: ThinkingBudget,
        guide: ConstrainedSampler | None,
    ) -> None:
        self._context = context
        self._sampler = sampler
        self._budget = budget
        self._guide = guide
        self.forced_in_a_row = 0  # forced tokens since the last sampled one

    @property
    def complete(self) -> bool:
        """Whether the constraint allows no more tokens."""
        return self._guide is not None and self._guide.complete

    @property
    def why(self) -> str:
        """Why no token is allowed; see Matcher."""
        return self._guide.why if self._guide else ""

    def forced(self) -> list[int]:
        """The tokens that are known to come next."""
        return (self._guide.forced if self._guide else []) or self._budget.due()

    def next(self, row: int) -> int | None:
        """The next token: a forced one, or one sampled from this row of logits. None if the
        constraint allows no token."""
        self.forced_in_a_row = self.forced_in_a_row + 1 if self.forced() else 0
        if self._guide and (self._guide.forced or not self._budget.due()):
            return self._guide.sample(self._sampler, self._context, row)
        if due := self._budget.due():
            token = due.pop(0)
            self._sampler.accept(token)
            return token
        return self._sampler.sample(self._context, row)
