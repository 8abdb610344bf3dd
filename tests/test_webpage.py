"""The page of /export: Markdown is rendered, nothing runs, nothing is fetched."""

import re
from html.parser import HTMLParser

import pytest
from browser import CHROMIUM, Browser
from hypothesis import given, settings
from hypothesis import strategies as st
from terminal import NOW

from lcp.chat import webpage
from lcp.chat.attachments import attach
from lcp.session.conversation import Conversation
from lcp.terminal.markdown_html import fragment

VOID = {"meta", "br", "hr"}
TAGS = VOID | {
    "html", "head", "title", "style", "body", "main", "header", "section", "aside", "div", "p",
    "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "span",
    "table", "thead", "tbody", "tr", "th", "td", "em", "strong", "s", "a", "details", "summary",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "name", "content", "http-equiv", "dir", "class", "href", "title", "rel",
    "start", "data-language",
}  # fmt: skip


class Page(HTMLParser):
    """The elements and the text of a page; each element must be closed in its parent."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.shown, self._open = set(), [], "", []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)
        nested = [tag for tag in self._open if tag in ("p", "a", "h3", "pre")]
        assert len(nested) == len(set(nested)), f"{tag} in {self._open}"

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.shown += data

    @property
    def everything(self):
        """The text with that of attributes: addresses, titles of links, languages."""
        return self.shown + " ".join(value or "" for _, value in self.attributes)


def a_chat(*turns, system="", thinking="", name=""):
    chat = Conversation.begin(lambda: NOW, "/models/smol.gguf")
    if system:
        chat.set_system(system)
    if name:
        chat.rename(name)
    for question, answer in turns:
        chat.ask(question)
        facts = {"ended": "end", "model": chat.model, "sampling": {}, "seed": 7}
        stats = {"reply_tokens": 1234, "tokens_per_second": 20.03}
        chat.answer(answer, thinking=thinking, **facts, stats=stats)
    return chat


# Markdown


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("# One", '<h3 dir="auto">One</h3>'),
        ("###### Six", '<h6 dir="auto">Six</h6>'),
        ("a *b* **c** ~~d~~ `<e>`",
         "a <em>b</em> <strong>c</strong> <s>d</s> <code>&lt;e&gt;</code>"),
        ("- a\n- b", '<ul><li dir="auto">a\n</li>\n<li dir="auto">b\n</li>\n</ul>'),
        ("3. a", '<ol start="3"><li dir="auto">a\n</li>\n</ol>'),
        ("one\ntwo", "one<br>\ntwo"),
        ("> q", '<blockquote dir="auto"><p dir="auto">q</p>\n</blockquote>'),
        ("a\n\n---", "<hr>"),
        ("$$\na_1 * b_2 * c\n$$", '<div class="maths" dir="auto">$$\na_1 * b_2 * c\n$$</div>'),
        ("so $a_1 < b_2$ is", "so $a_1 &lt; b_2$ is"),
        ("```py\nif x: '<b>'\n```",
         '<pre data-language="py"><code><span class="keyword">if</span> x: '
         '<span class="literal-string">&#x27;&lt;b&gt;&#x27;</span></code></pre>'),
        ("    code", "<pre><code>code</code></pre>"),
        ("<b>x</b>", "&lt;b&gt;x&lt;/b&gt;"),
    ],
)  # fmt: skip
def test_blocks_of_markdown_as_html(markdown, html):
    assert html in fragment(markdown)


def test_a_table_keeps_its_alignment_and_scrolls():
    html = fragment("| a | b |\n|--|--:|\n| 1 | 2 |")
    assert html.startswith('<div class="table"><table><thead><tr><th dir="auto">a</th>')
    assert '<td dir="auto" class="right">2</td>' in html


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("[a](https://x.y/?b&c)", '<a class="named" href="https://x.y/?b&amp;c" rel="nore'),
        ("<https://x.y>", '<a href="https://x.y" rel="noreferrer">https://x.y</a>'),
        ("<me@x.y>", '<a href="mailto:me@x.y" rel="noreferrer">me@x.y</a>'),
        ("![alt](https://x.y/z.png)", 'href="https://x.y/z.png" rel="noreferrer">alt</a>'),
        ("![](https://x.y/z.png)", 'href="https://x.y/z.png" rel="noreferrer">https://x.y/z.png<'),
        ("[a](/etc/passwd)", "a (/etc/passwd)"),
        ("[a](ftp://x.y)", "a (ftp://x.y)"),
        ("[![alt](http://a.b)](http://c.d)", '"http://c.d" rel="noreferrer">alt (http://a.b)</a>'),
        ("[a](javascript:alert(1))", "[a](javascript:alert(1))"),
        ("[a](x:y\u202e)", "a (x:y%3C202E%3E)"),
    ],
)
def test_only_addresses_of_the_web_and_mail_are_links(markdown, html):
    found = fragment(markdown)
    assert html in found
    assert found.count("<a ") <= 1
    assert "<img" not in found


@pytest.mark.slow
def test_deeply_nested_markup_is_rendered():
    for deep in ("*a " * 3000, "> " * 3000 + "a", "- " * 3000 + "a", "[" * 3000, "`" * 3000):
        Page(fragment(deep))


# the page


def test_a_page_has_its_facts():
    page = webpage.page(a_chat(("Hi <b>.", "Yes."), system="Be *brief*.", thinking="- Hm."))
    for part in (
        "<title>Hi &lt;b&gt;.</title>",
        f"{NOW:%Y-%m-%d %H:%M} · smol · 1 turn</p>",
        "Be *brief*.</p>",
        '<details class="thinking">\n<summary dir="auto">Thinking</summary>\n<ul>',
        '<p class="typed" dir="auto">Hi &lt;b&gt;.</p>',
        "1,234 tokens · 20.0 tokens/s · seed 7",
    ):
        assert part in page


def test_the_page_has_the_present_branch():
    chat = a_chat(("One?", "First."))
    chat.go(chat.nodes[chat.head].parent)
    chat.answer("Second.", "length", "x/other.gguf", seed=8)
    chat.ask("And?")
    page = webpage.page(chat)
    assert "First." not in page
    for part in ("Second.", "<h2>other</h2>", "seed 8 · length", "No answer.", "one of 2 branches"):
        assert part in page


def test_an_empty_chat_is_a_page():
    assert "<title>Chat</title>" in webpage.page(a_chat())


@pytest.mark.parametrize("before", ["", "from a pipe\n\n"])
@pytest.mark.parametrize(
    "typed", ["What do @a.py and @b.txt do?", "@a.py @b.txt", "```\n@a.py @b.txt"]
)
def test_attached_files_are_folded(tmp_path, before, typed):
    (tmp_path / "a.py").write_text("def f():\n    return '```'\n")
    (tmp_path / "b.txt").write_text("plain <b>\n```\nx\n```\n")
    chat = a_chat()
    chat.ask(before + attach(typed, tmp_path).text, before + typed)
    page = webpage.page(chat)
    assert re.findall('<summary dir="auto">(.*)</summary>', page) == [
        "a.py · 2 lines", "b.txt · 4 lines"
    ]  # fmt: skip
    assert '<pre data-language="py"><code><span class="keyword">def</span>' in page
    assert '<pre data-language="txt"><code>plain &lt;b&gt;\n```\nx\n```</code></pre>' in page
    rest = Page(page.rpartition("</details>")[2].rpartition("</section><section>")[0] or page).shown
    assert typed.split()[-1] in rest
    assert before.strip() in rest


# any messages

WORDS = [f"w{n}w" for n in range(30)]
MARKS = [
    *"*_`~#>-+|[]()!<>&\\\"'$:=\n\n\n ", "```", "~~~ ", "$$", "1. ", "- ", "    ", "\n\n",
    "|--|--|",
    "<script>", "</script>", "<img src=x onerror=alert(1)>", "</style>", "</pre>", "<!--", "-->",
    "](https://evil.example)", "](javascript:alert(1))", "![", "\x00", "\u202e", "\x1b]0;", "&#60;",
    "&lt;", "onclick=", "http://evil.example/", "\ud800", "\r", "\u2028", "<style>@import 'x'",
]  # fmt: skip


def texts():
    """Words, each at most once, among markup: (text, its words)."""

    def joined(parts):
        words = iter(WORDS)
        made = [next(words) if part is None else part for part in parts[:30]]
        return "".join(f" {p} " if p in WORDS else p for p in made), [p for p in made if p in WORDS]

    return st.lists(st.none() | st.sampled_from(MARKS)).map(joined)


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(st.tuples(*5 * [texts()]))
def test_no_message_becomes_html_and_none_is_lost(said):
    question, answer, thinking, system, name = (text for text, _ in said)
    page = Page(
        webpage.page(a_chat((question, answer), system=system, thinking=thinking, name=name))
    )
    assert page.tags <= TAGS
    assert {name for name, _ in page.attributes} <= ATTRIBUTES
    for name, value in page.attributes:
        if name == "href":
            assert re.match("https?://|mailto:", value, re.IGNORECASE)
    assert not set("\x00\x1b\u202e\u2028\r") & set(page.everything)
    for _, words in said[:4]:  # a name is cut to fit
        assert [word for word in words if word not in page.everything] == []


# in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("there is no chromium to look at the page with")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


ANSWER = """\
# Heading

| a long name of a column | another | a third one | a fourth | a fifth | a sixth | a seventh |
|---|---|---|---|---|---|---|
| word_without_an_end_in_sight | b | c | d | e | f | word_without_an_end_in_sight |

```python
def f(): return "a line of code that is much longer than the screen of any phone, and then some"
```

""" + "x" * 500 + """

![picture](http://127.0.0.1:9/x.png) <img src="http://127.0.0.1:9/y.png" onerror="document.title=1">

<script>document.title = "ran"</script> <style>@import "http://127.0.0.1:9/z.css"</style>
"""  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_in_a_browser(browser, tmp_path, width, scheme):
    file = tmp_path / "chat.html"
    long = "y" * 500
    chat = a_chat(
        (f"Hi?\n{long}\n```\n{long}\n```", ANSWER), thinking=ANSWER, system=long, name="N"
    )
    file.write_text(webpage.page(chat), "utf-8")
    browser.shows(file, width, scheme)
    # nothing was fetched, nothing ran, no errors
    asked = [event["request"]["url"] for event in browser.heard("Network.requestWillBeSent")]
    assert asked == [file.as_uri()]
    assert browser.heard("Log.entryAdded") == []
    assert browser.heard("Runtime.exceptionThrown") == []
    assert browser.says("document.title") == "N"
    assert browser.says("document.compatMode") == "CSS1Compat"
    # the page fits the window; what is wide scrolls in itself
    assert browser.says("document.documentElement.scrollWidth") == width
    assert browser.says("[...document.querySelectorAll('section.answer > pre')]"
                        ".some(e => e.scrollWidth > e.clientWidth)") is True  # fmt: skip
    # as the browser reads it: one element of each, and folded
    assert browser.says("document.querySelectorAll('h3').length") == 2
    assert browser.says("document.querySelectorAll('script, img, link, iframe').length") == 0
    assert browser.says("document.querySelector('details').open") is False
    # dark or light, with contrast
    colours = [
        list(map(int, re.findall(r"\d+", browser.says(f"getComputedStyle({of}).{what}"))))[:3]
        for of, what in (
            ("document.body", "backgroundColor"), ("document.body", "color"),
            ("document.querySelector('.facts')", "color"),
            ("document.querySelector('.keyword')", "color"),
        )
    ]  # fmt: skip
    page, *others = map(luminance, colours)
    assert (page < 0.1) is (scheme == "dark")
    for other in others:
        assert (max(page, other) + 0.05) / (min(page, other) + 0.05) > 4.5  # WCAG AA


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
              for c in (part / 255 for part in colour)]  # fmt: skip
    return sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
