"""Messages to prompts, with real templates and with hostile ones."""

import threading
import time
import tracemalloc
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcp.engine.template import CHATML, SOURCE_LIMIT, Template
from lcp.engine.template_choice import choose
from lcp.errors import TemplateError

NOW = datetime(2026, 11, 22, 9, 0)


def message(role, content, **more):
    return {"role": role, "content": content} | more


SYSTEM, USER = message("system", "Be brief."), message("user", "Hello")
ANSWER, AGAIN = message("assistant", "Hi."), message("user", "Bye")
TALK = [SYSTEM, USER, ANSWER, AGAIN]


def template(source, own=False, **options):
    if own:
        return choose(source, now=NOW, bos="<s>", eos="</s>", name="tiny.gguf", own=True).template
    return Template(source, now=NOW, bos="<s>", eos="</s>", name="tiny.gguf", **options)


def render(source, messages=TALK, **options):
    return template(source).render(messages, **options)


def refusal(source, messages=TALK, seconds=2.0):
    """The error of the rendering."""
    with pytest.raises(TemplateError) as raised:
        template(source, seconds=seconds).render(messages)
    sentence = str(raised.value)
    assert sentence.startswith("The chat template of tiny.gguf ")
    assert raised.value.change == {"chat_template": "FILE"}
    assert "\n" not in sentence and len(sentence) < 400
    return sentence


# templates of a person


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            "{% for m in messages %}\n{{ m.content ",
            "does not work: line 2: unexpected end of template",
        ),
        ("{{ messages[0].content }}\n\n{{ now() }}", "does not work: line 3: 'now' is undefined"),
        ("Hello.", "never prints the content of a message"),
        ("", "never prints the content of a message"),
    ],
)
def test_errors_in_a_template_file_name_the_line(source, sentence):
    with pytest.raises(TemplateError) as raised:
        template(source, own=True).render([USER])
    said = str(raised.value)
    assert sentence in said
    assert not raised.value.change


def test_a_template_file_of_a_person_is_used_as_it_is():
    shout = "{% macro say(m) %}{{ m.content|upper }}!{% endmacro %}{{ say(messages[-1]) }}"
    assert template(shout, own=True).render([USER]) == "HELLO!"
    needs = "{{ raise_exception('Alone.') if messages|length < 2 }}"
    needs += "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert template(needs, own=True).render([SYSTEM, USER]) == "Be brief.Hello"


# real templates

LLAMA_2 = """\
{%- if messages[0]['role'] == 'system' -%}
  {%- set rest = messages[1:] -%}{%- set system = messages[0]['content'] -%}
{%- else -%}
  {%- set rest = messages -%}{%- set system = false -%}
{%- endif -%}
{%- for message in rest -%}
  {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
    {{ raise_exception('Conversation roles must alternate user/assistant/user/...') }}
  {%- endif -%}
  {%- if loop.index0 == 0 and system -%}
    {%- set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] -%}
  {%- else -%}{%- set content = message['content'] -%}{%- endif -%}
  {%- if message['role'] == 'user' -%}
    {{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
  {%- elif message['role'] == 'assistant' -%}
    {{ ' ' + content.strip() + ' ' + eos_token }}
  {%- endif -%}
{%- endfor -%}"""

GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{{- raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif %}
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

LLAMA_3 = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" + system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

QWEN_3 = """\
{%- set ns = namespace(last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- if message.role == "user" %}{%- set ns.last = messages|length - loop.index %}{%- break %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {%- set reasoning = message.reasoning_content or '' %}
        {%- set content = message.content %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last and reasoning %}
            {{- '<think>\\n' + reasoning + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""


def test_chatml():
    assert render(CHATML) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
        "<|im_start|>assistant\nHi.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_template_may_place_the_system_text_itself():
    assert render(LLAMA_2) == (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHello [/INST] Hi. </s><s>[INST] Bye [/INST]"
    )


def test_if_a_template_refuses_a_system_message_it_is_in_the_first_question():
    assert render(GEMMA) == (
        "<s><start_of_turn>user\nBe brief.\n\nHello<end_of_turn>\n"
        "<start_of_turn>model\nHi.<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"
    )


def test_if_a_template_ignores_a_system_message_it_is_in_the_first_question():
    ignoring = (
        "{% for m in messages %}{% if m.role != 'system' %}[{{ m.role }}]{{ m.content }}"
        "{% endif %}{% endfor %}"
    )
    assert render(ignoring, [SYSTEM, USER]) == "[user]Be brief.\n\nHello"


def test_a_template_that_takes_a_system_message_gets_it():
    assert "<|start_header_id|>system<|end_header_id|>" in render(LLAMA_3, [SYSTEM, USER])


def test_a_refused_system_message_without_a_question_becomes_one():
    assert render(GEMMA, [SYSTEM]) == render(GEMMA, [message("user", "Be brief.")])
    assert "Be brief." in render(GEMMA, [SYSTEM, ANSWER])


@pytest.mark.parametrize("source", [GEMMA, LLAMA_2])
def test_an_unanswered_question_is_joined_with_the_next_one(source):
    rendered = render(source, [USER, AGAIN, ANSWER, AGAIN])
    assert rendered == render(source, [message("user", "Hello\n\nBye"), ANSWER, AGAIN])


def test_a_refusal_after_moving_the_system_text_is_reported():
    sentence = refusal(GEMMA, [message("tool", "42"), ANSWER])
    assert "refuses these messages: Conversation roles must alternate" in sentence


def test_the_given_messages_are_not_changed():
    talk = [dict(m) for m in [SYSTEM, USER, AGAIN]]
    render(GEMMA, talk)
    assert talk == [SYSTEM, USER, AGAIN]


def test_the_date_is_the_day_the_conversation_began():
    assert "Today Date: 22 Nov 2026\n" in render(LLAMA_3)
    assert render("{{ strftime_now('%Y-%m-%d %H:%M') }}") == "2026-11-22 09:00"


def test_contents_may_be_trimmed():
    assert "Hello<end_of_turn>" in render(GEMMA, [message("user", " \nHello\n ")])


def test_templates_see_no_tools():
    assert "ipython" not in render(LLAMA_3)
    assert render("{% if tools %}yes{% else %}no{% endif %}") == "no"
    assert render("{% if tools is not none %}yes{% else %}no{% endif %}") == "no"
    assert render("{% for tool in tools %}{{ tool }}{% endfor %}.") == "."
    assert render("{{ tools|length }}{{ documents|length }}") == "00"


def test_thinking_of_earlier_turns_is_stripped_but_not_of_the_last():
    thought = message("assistant", "<think>\nHm.\n</think>\n\nHi.")
    assert "Hm." not in render(QWEN_3, [USER, thought, AGAIN])
    assert "<|im_start|>assistant\nHi.<|im_end|>" in render(QWEN_3, [USER, thought, AGAIN])
    apart = message("assistant", "Hi.", reasoning_content="Hm.")
    shown = "<think>\nHm.\n</think>\n\nHi.<|im_end|>"
    assert shown in render(QWEN_3, [USER, apart]) and shown in render(QWEN_3, [USER, thought])


def test_thinking_can_be_turned_off():
    off, on = ({"enable_thinking": think} for think in (False, True))
    assert render(QWEN_3, [USER], variables=off).endswith("<think>\n\n</think>\n\n")
    assert render(QWEN_3, [USER], variables=on).endswith("assistant\n")


def test_variables_cannot_replace_the_messages():
    source = "{{ messages | length }} {{ reasoning_effort is defined }} {{ reasoning_effort }}"
    assert render(source, [USER]) == "1 False "
    assert render(source, [USER], variables={"reasoning_effort": "low"}) == "1 True low"
    assert render(source, [USER], variables={"messages": []}) == "1 False "
    assert template(source).uses("reasoning_effort")
    assert not template(source).uses("enable_thinking")


def test_without_a_generation_prompt_there_is_no_tail():
    assert render(CHATML, [USER], ask=True).removeprefix(render(CHATML, [USER], ask=False)) == (
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "source, text",
    [
        ("{% generation %}in{{ 'side' }}{% endgeneration %}", "inside"),
        ("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        (
            "{% for i in range(4) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
            "023",
        ),
        ("{% set ns = namespace(n=1) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
         "{% endfor %}{{ ns.n }}", "4"),
        ("{% macro say(m, end='!') %}{{ m.content }}{{ end }}{% endmacro %}"
         "{{ say(messages[0]) }}{{ say(messages[1], end='') }}", "Hello!Hi."),
        ("{% set text %}{{ messages[0].content }}{% endset %}{{ text | upper }}", "HELLO"),
        ("{% macro each() %}{{ caller(1) }}{{ caller(2) }}{% endmacro %}"
         "{% call(x) each() %}<{{ x }}>{% endcall %}", "<1><2>"),
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "Hello"}'),
        ("{{ {'a': ['é', '<b>']} | tojson(indent=2) }}",
         '{\n  "a": [\n    "é",\n    "<b>"\n  ]\n}'),
        ("{{ 'é' | tojson(ensure_ascii=True) }}", '"\\u00e9"'),
        ("{{ messages | map(attribute='role') | unique | join(',') }}", "user,assistant"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "2"),
        ("{{ (messages | rejectattr('role', 'in', ['user', 'tool']) | first).content }}", "Hi."),
        ("{% if messages | selectattr('role', 'equalto', 'tool') %}a{% endif %}", "a"),
        ("{% for k, v in messages[0] | items %}{{ k }}={{ v }};{% endfor %}",
         "role=user;content=Hello;"),
        ("{{ 'a' ~ 1 ~ none ~ messages[0].content }}", "a1NoneHello"),
        ("{{ '-' * 3 + 'x' }}{{ [1] + [2] }}{{ 2 ** 10 }}{{ 7 // 2 }}{{ 7 % 4 }}",
         "---x[1, 2]102433"),
        ("{{ '{}: {:>4}|{a}'.format('x', 7, a='y') }}", "x:    7|y"),
        ("{{ '%s-%03d' % ('a', 5) }}{{ '%d' | format(3) }}", "a-0053"),
        ("{{ 'a,b'.split(',')[-1] }}{{ ', '.join(['x', 'y']) }}{{ messages[0].get('name', '?') }}",
         "bx, y?"),
        ("{{ messages[-1]['content'][:2] }}{{ (messages[:2] | last).role }}", "Byassistant"),
        ("{{ x is defined }}{{ none is none }}{{ 'a' is string }}{{ {} is mapping }}"
         "{{ [] is iterable }}", "FalseTrueTrueTrueTrue"),
        ("{{ 'ab' | indent(2, first=true) }}{{ ' x ' | trim }}{{ 'x' | default('y') }}"
         "{{ y | default('z') }}", "  abxxz"),
        ("  {% if true %}\nx\n  {% endif %}\n", "x\n"),  # trim_blocks and lstrip_blocks
        ("{# a comment #}x{% raw %}{{ y }}{% endraw %}", "x{{ y }}"),
        ("{{ messages[0].content | safe }}{{ '<b>' }}", "Hello<b>"),
    ],
)  # fmt: skip
def test_features_that_templates_use(source, text):
    assert render(source, [USER, ANSWER, AGAIN]) == text


def test_without_a_template_chatml_is_used():
    assert render(None) == render(CHATML)
    assert template(None).is_fallback
    assert not template(CHATML).is_fallback


@pytest.mark.slow
@given(st.lists(st.text(max_size=30), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_contents_are_printed_unchanged(contents):
    rendered = render(CHATML, [message("user", content) for content in contents])
    assert rendered == "".join(
        f"<|im_start|>user\n{content}<|im_end|>\n" for content in contents
    ) + ("<|im_start|>assistant\n")


@pytest.mark.slow
@pytest.mark.parametrize("source", [CHATML, LLAMA_2, GEMMA, LLAMA_3, QWEN_3])
@pytest.mark.parametrize(
    "content",
    ["My number: 5551234567", "100%  0000000 * {0:9999999}", "{{ 7 * 7 }}{% break %}", "é🙂" * 9],
)
def test_contents_are_never_run_as_templates_or_formats(source, content):
    assert content in render(source, [message("user", content)])


@pytest.mark.slow
def test_a_long_conversation_stays_within_the_limits():
    text = "A paragraph with a number in it: 5551234567. " * 20
    talk = [SYSTEM, *[message("user", text), message("assistant", text)] * 500, AGAIN]
    collecting = (
        "{% set ns = namespace(out='') %}{% for m in messages %}"
        "{% set ns.out = ns.out ~ '[' ~ m.role ~ ']' ~ m.content %}{% endfor %}{{ ns.out }}"
    )
    for source in (CHATML, LLAMA_2, GEMMA, LLAMA_3, QWEN_3, collecting):
        assert render(source, talk).count(text.strip()) == 1000


def test_two_threads_can_render_at_once():
    """Reading ahead does while a window is fitted. Each rendering has its own limits."""
    one = template(CHATML)
    large, small = [message("user", "x" * 2_000_000)], [USER]
    failed = []

    def work(messages):
        try:
            for _ in range(20):
                one.render(messages)
        except TemplateError as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(m,)) for m in (large, small, small)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


# hostile templates: each ends in an error

BIG = "{% set b = 'a'.ljust(1000000) %}"
PAIR = "{% set ns = namespace(s=['a'], t=['a']) %}{% for i in range(60) %}"
GROWING = "{% set ns = namespace(s='aaaa') %}{% for i in range(99) %}"
ITEMS = "{% set xs = range(60000) | list %}{% set ys = range(60000) | list %}"
PRIME = 2**61 - 1  # numbers with this distance have one hash

TOO_LONG = {
    "loops in loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
    "{% endfor %}",
    "macros that call themselves twice": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}"
    "{% endif %}{% endmacro %}{{ f(60) }}",
    "blocks that call themselves twice": "{% set ns = namespace(n=0) %}{% block a %}"
    "{% set ns.n = ns.n + 1 %}{% if ns.n < 60 %}{{ self.a() }}{{ self.a() }}{% endif %}"
    "{% set ns.n = ns.n - 1 %}{% endblock %}",
    "a condition of a loop": ITEMS
    + "{% for a in range(99999) if xs == ys and false %}{% endfor %}",
    "a test for every item that finds none": ITEMS + "{{ xs | reject('in', xs) | list }}",
    "a test for every item": ITEMS + "{{ xs | select('in', xs) | list }}",
    "comparisons without a loop": ITEMS + "{% if xs == ys %}{% endif %}" * 300,
    "lazy results of lazy results": "{% set ns = namespace(g=range(3)) %}"
    "{% for i in range(99999) %}{% set ns.g = ns.g | map('string') %}{% endfor %}",
}

TOO_LARGE = {
    "a product": "{{ 'a' * 99999999999 }}",
    "a list, multiplied": "{{ [0] * 268000000 }}",
    "a list, multiplied from the left": "{{ 268000000 * [0] }}",
    "a method with a width": "{{ 'a'.ljust(99999999999) }}",
    "wide characters": "{{ '€'.ljust(90000000) }}",
    "a filter with a width": "{{ 'a' | center(10 ** 10) }}",
    "tabs": "{{ ('\t' * 1000).expandtabs(1000000) }}",
    "% with a width": "{{ '%999999999d' % 1 }}",
    "% with a width from an argument": "{{ '%*d' % (1000000000, 1) }}",
    "% of bytes": "{{ '%999999999d'.encode() % 1 }}",
    "the filter format": "{{ '%999999999d' | format(1) }}",
    "the filter format, by name": "{{ ['%999999999d'] | map('format', 1) | list }}",
    "the method format": "{{ '{:999999999d}'.format(1) }}",
    "the method format, in a long text": "{{ ('x' * 300 ~ '{:999999999}').format(1) }}",
    "the method format, many fields": "{{ ('{0:99999}' * 40000).format('a') }}",
    "a width within a width": "{{ '{0: {1}}'.format(5, 999999999) }}",
    "a width within a width, from a list": "{{ '{0:{1[0]}}'.format('a', [1000000000]) }}",
    "replace": "{% set x = 'a'.ljust(100000) %}{{ x | replace(' ', x) }}",
    "translate": BIG + "{{ b.translate({97: b, 32: b}) }}",
    "a large separator": BIG + "{{ range(99999) | join(b) }}",
    "a large separator and a lazy list": BIG + "{{ b.join(range(9999) | map('string')) }}",
    "a large separator and a view": BIG
    + "{{ dict.fromkeys(range(50000), '').items() | join(b) }}",
    "wide items, lazily": "{{ range(999) | map('string') | map('center', 1000000) | join }}",
    "wide items as arguments": "{% macro f() %}{% endmacro %}"
    "{{ f(*(range(999) | map('string') | map('center', 1000000))) }}",
    "slices": "{{ [1] | slice(100000000) | list }}",
    "a batch": "{{ [1] | batch(100000000, 'x') | list }}",
    "doubling by ~": GROWING + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "doubling by +": GROWING + "{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "doubling by a block": GROWING + "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}{% endfor %}",
    "doubling by join": GROWING + "{% set ns.s = [ns.s, ns.s] | join %}{% endfor %}",
    "doubling by replace": GROWING + "{% set ns.s = ns.s | replace('a', 'aa') %}{% endfor %}",
    "doubling of a list": PAIR + "{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "doubling by caller": "{% macro f() %}{{ caller() }}{{ caller() }}{% endmacro %}"
    + "{% call f() %}" * 18 + "x" * 1000 + "{% endcall %}" * 18,
    "nested lists": PAIR + "{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s | tojson }}",
    "nested lists, compared": PAIR + "{% set ns.s = (ns.s, ns.s) %}{% set ns.t = (ns.t, ns.t) %}"
    "{% endfor %}{{ ns.s == ns.t }}",
    "nested arguments, compared": "{% macro f() %}{% set ns.s = varargs %}{% endmacro %}"
    "{% macro g() %}{% set ns.t = varargs %}{% endmacro %}" + PAIR
    + "{{ f(ns.s, ns.s) }}{{ g(ns.t, ns.t) }}{% endfor %}{{ ns.s == ns.t }}",
    "nested namespaces": "{% set ns = namespace(s='a') %}{% for i in range(60) %}"
    "{% set ns.s = namespace(a=ns.s, b=ns.s) %}{% endfor %}{{ ns.s ~ '' }}",
    "a namespace in itself": "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
    "large keys": BIG + "{% set d = {b: 1} %}{{ d" + " ~ d" * 300 + " }}",
    "many parts": BIG + "{{ b" + " ~ b" * 300 + " }}",
    "much output": "{% for a in range(99999) %}{% for b in range(99) %}" + "a" * 9000
    + "{% endfor %}{% endfor %}",
    "much output into a block": BIG + "{% set x %}{% for a in range(99999) %}{{ b }}{% endfor %}"
    "{% endset %}",
    "much output into a macro": BIG + "{% macro f() %}{% for a in range(99999) %}{{ b ~ a }}"
    "{% endfor %}{% endmacro %}{{ f() | length }}",
    "much output into a filter": BIG + "{% filter upper %}{% for i in range(9999) %}{{ b }}"
    "{% endfor %}{% endfilter %}",
    "much literal text into a block": "{% set x %}{% for a in range(99999) %}" + "A" * 50000
    + "{% endfor %}{% endset %}",
    "many variables": BIG + "".join(f"{{% set a{i} = b ~ {i} %}}" for i in range(300)),
    "many slices": BIG + "".join(f"{{% set a{i} = b[1:] %}}" for i in range(300)),
    "constants": "{{ 'a' | center(900000) | upper }}" * 300,
    "powers": "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}"
    "{% endfor %}",
    "a power": "{{ 10 ** (10 ** 10) }}",
    "numbers out of bytes": "{{ (1).from_bytes(('a' * 1000000).encode(), 'big') // 3 }}",
    "numbers with one hash": f"{{{{ dict.fromkeys(range(0, {60000 * PRIME}, {PRIME})) }}}}",
    "a date as wide as a book": "{{ strftime_now('%1000d' * 200000) }}",
    "a search that is quadratic": "{{ ('a' * 900000).rfind('ab' ~ 'a' * 400000) }}",
}  # fmt: skip

OUT_OF_BOUNDS = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "classes of messages": "{{ messages.__init__.__globals__ }}",
    "classes by filter": "{{ (''|attr('__class__')).x }}",
    "classes by map": "{{ (messages|map(attribute='__class__')|first).x }}",
    "classes by format": "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
    "globals of a function": "{{ raise_exception.__globals__['x'] }}",
    "the code of a function": "{{ strftime_now.__code__.co_code }}",
    "the frame of a generator": "{{ (messages|map('string')).gi_frame.f_back }}",
    "the environment": "{{ self._TemplateReference__context.environment }}",
    "subclasses": "{{ dict.mro() }}",
    "changing the messages": "{{ messages.append({}) }}",
    "changing a message": "{{ messages[0].clear() }}",
    "files": "{% include '/etc/passwd' %}",
    "modules": "{% import 'os' as os %}",
}

BROKEN = {
    "syntax": "{% if %}",
    "an unknown tag": "{% frobnicate %}",
    "an unknown filter": "{{ 1 | frobnicate }}",
    "an unknown name": "{{ foo.bar.baz }}",
    "a call of nothing": "{{ foo() }}",
    "division by zero": "{{ 1 // 0 }}",
    "recursion": "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "recursion of a loop": "{% for m in messages recursive %}{{ loop([m]) }}{% endfor %}",
    "nested parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "nested lists": "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "nested conditions": "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
    "a long chain": "{{ messages" + ".a" * 20000 + " }}",
    "a long source": "x" * (SOURCE_LIMIT + 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("source", TOO_LONG.values(), ids=TOO_LONG)
def test_an_endless_template_is_stopped(source):
    begun = time.monotonic()
    assert "takes too much time" in refusal(source, seconds=0.1)
    assert time.monotonic() - begun < 3


@pytest.mark.slow
@pytest.mark.parametrize("source", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_template_that_uses_much_memory_is_stopped(source):
    begun = time.monotonic()
    assert "takes too much room" in refusal(source, seconds=10)
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("source", OUT_OF_BOUNDS.values(), ids=OUT_OF_BOUNDS)
def test_a_template_cannot_leave_the_sandbox(source):
    assert "does not work" in refusal(source)


@pytest.mark.slow
@pytest.mark.parametrize("source", BROKEN.values(), ids=BROKEN)
def test_a_broken_template_is_an_error(source):
    refusal(source)


def test_a_refusal_of_many_lines_is_shown_on_one_line():
    assert "refuses these messages: a b c." in refusal("{{ raise_exception('a\\nb\\n  c.') }}")


@pytest.mark.slow
def test_the_memory_of_a_template_is_bounded():
    peaks = {}
    tracemalloc.start()
    for name, source in (TOO_LARGE | TOO_LONG).items():
        tracemalloc.reset_peak()
        refusal(source, seconds=1)
        peaks[name] = tracemalloc.get_traced_memory()[1] >> 20
    tracemalloc.stop()
    worst = max(peaks, key=peaks.get)
    print(f"the most: {peaks[worst]} MiB by {worst}")
    # a faster machine does more within a second, but no machine does much
    assert peaks[worst] < 600
