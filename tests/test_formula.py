"""Formulas: what models write becomes MathML, and what cannot be one takes neither time nor the process."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from threading import stack_size
from time import thread_time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmchat.app import STACK_BYTES, create_app
from llmchat.formula import CLASSES, GROWTH_OF_FORMULA, GROWTH_OF_FORMULA_AT_ONCE, MAX_FORMULA, mathml
from llmchat.settings import Settings

WRITTEN = [
    r"\frac{-b \pm \sqrt{b^2-4ac}}{2a}", r"\sum_{i=1}^{n} i = \frac{n(n+1)}{2}", r"\int_{-\infty}^{\infty} e^{-x^2}\,dx",
    r"\begin{aligned} a &= b + c \\ &= d \end{aligned}", r"\begin{align} a &= b \label{a} \\ c &= d \nonumber \end{align}",
    r"f(x) = \begin{cases} x & \text{if } x > 0 \\ -x & \text{otherwise} \end{cases}",
    r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}", r"\begin{bmatrix} 1 & \cdots \\ \vdots & \ddots \end{bmatrix}",
    r"\begin{vmatrix} a & b \\ c & d \end{vmatrix}", r"\left[\begin{array}{cc|c} 1 & 2 & 3 \\ \hline 4 & 5 & 6 \end{array}\right]",
    r"\boxed{x = 5}", r"\boxed{\text{yes}}", r"\alpha \beta \Gamma \varepsilon \vartheta", r"\lim_{x \to 0} \frac{\sin x}{x}",
    r"\mathbb{R}^n \to \mathcal{L}", r"\left( \frac{a}{b} \right)^2", r"\overline{AB} \vec{v} \hat{x} \widehat{ABC} \widetilde{a}",
    r"\underbrace{a+b}_{\text{sum}}", r"\xrightarrow{f}", r"\text{Speed} = 3 \times 10^8 \text{ m/s}",
    r"\operatorname{argmax}_x f(x)", r"\operatorname*{argmin}_{\theta}", r"P(A \mid B)", r"\binom{n}{k}", r"a \tag{1}",
    r"\begin{equation} E = mc^2 \tag{2} \end{equation}", r"\begin{align*} a &= b \tag{3} \\ c &= d \end{align*}",
    r"\cancel{x}", r"\color{red}{x} + \textcolor{blue}{y}", r"\nabla \cdot \mathbf{E} = \frac{\rho}{\varepsilon_0}",
    r"\begin{equation} E=mc^2 \end{equation}", r"\begin{gather} a \\ b \end{gather}", r"\begin{split} a &= b\\ &=c\end{split}",
    r"\dfrac{a}{b} \tfrac12", r"\sqrt[3]{x}", r"\lVert x \rVert_2", r"\bm{x} \boldsymbol{\beta}", r"\pmod{n}", r"\text{for $x$ in rate_1}",
    r"100\% + 50%", r"f'(x) \implies f''(x)", r"\sum_{\substack{i < n \\ j < n}} x_{ij}", r"a = b \\ c = d", r"a &= b \\ &= c",
    r"\begin{matrix}a\\[4pt]b\end{matrix}", r"\mathop{\lim}\limits_{x \to 0}", r"\mbox{a} \hbox{b}", r"\mathrm{d}x \, \mathrm{H_2O}",
    r"\begin{alignat}{2} a &= b & c &= d \end{alignat}", r"\left\{ x \,\middle|\, y \right\}", "价格 = 5", r"\abs{x} \norm{y}",
    r"\begin{eqnarray} a &=& b \end{eqnarray}", r"x \in [0, 1) \cup (2, 3] \cup ]4, 5[", r"\langle \psi | \hat{H} | \phi \rangle",
    r"| \psi \rangle\langle \phi |", r"\bigl( \lfloor x \rfloor, \lceil y \rceil \bigr]", r"\left\{ \begin{array}{ll} (a & b) \\ [c & d) \end{array} \right.",
    r"\begin{aligned}" + r"f(x_1) &= \sin(\theta_1)\left(\frac{1}{2}\right)^2 + [0, 1) \\ " * 45 + r"\end{aligned}", r"\ce{}",
]  # fmt: skip


@pytest.mark.parametrize("source", WRITTEN[:-1])
def test_formula_that_models_write_is_shown(source: str) -> None:
    html = mathml(source, display=True)
    assert re.fullmatch(r'<math display="block">.+</math>', html)
    assert " style=" not in html
    assert "\\" not in html
    assert {name for names in re.findall(r'class="([^"]+)"', html) for name in names.split()} <= CLASSES


def test_formula_between_words_is_no_block() -> None:
    assert mathml("x^2", display=False) == "<math><msup><mi>x</mi><mn>2</mn></msup></math>"


def test_half_a_character_is_no_formula() -> None:
    assert mathml("\ud800", display=True) == ""


def test_lines_are_numbered_only_where_a_number_is_asked_for() -> None:
    assert "(1)" not in mathml(r"\begin{align} a &= b \\ c &= d \end{align}", display=True)
    tagged = mathml(r"\begin{align} a &= b \tag{7} \\ c &= d \end{align}", display=True)
    assert re.findall(r"<mtext>(.*?)</mtext>", tagged) == ["(7)"]
    assert "<mtext>(2.1)</mtext>" in mathml(r"x = 1 \tag{2.1}", display=True)


def test_text_may_hold_what_is_special_elsewhere_and_formulas() -> None:
    words = mathml(r"\text{where $x$ is a rate_1 of 5% & more}", display=True).replace(
        "\N{NO-BREAK SPACE}", " "
    )
    assert "<mtext>where </mtext><mi>x</mi><mtext> is a rate_1 of 5% &amp; more</mtext>" in words


def test_colours_are_those_of_the_page() -> None:
    names = {
        "red": "red",
        "blue": "blue",
        "green": "green",
        "orange": "orange",
        "purple": "purple",
        "teal": "teal",
    }
    for colour, name in names.items():
        assert f'class="{name}"' in mathml(rf"\color{{{colour}}} x", display=True), colour
    assert "class" not in mathml(r"\color{black} x", display=True)
    assert "class" not in mathml(r"\color{white} x", display=True)


@pytest.mark.parametrize(
    "source",
    [
        "", " ", r"\unknown", r"\frac{a}", "a_b_c", "{", "}", r"\href{javascript:alert(1)}{x}", r"\url{x}",
        r"\newcommand{\a}{\a\a}\a", r"\def\a{x}\a", r"\let\a\not\a", r"\providecommand\a{x}", r"\gdef\a{x}", r"\global\let\a=x",
        r"\hspace{30em} x", r"\kern 500em x", r"\raisebox{90em}{x}", r"\genfrac(){99em}{0}{a}{b}",
        "x\0y", "x" * (MAX_FORMULA + 1), r"\begin{<b>}", r"\color{red;background:url(//e)} x",
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_no_formula(source: str) -> None:
    assert mathml(source, display=True) == ""


NESTED = {
    "braces": lambda n: "{" * n + "x" + "}" * n,
    "openings": lambda n: "{" * n,
    "fractions": lambda n: r"\frac{" * n + "x" + "}{y}" * n,
    "powers": lambda n: "x^{" * n + "x" + "}" * n,
    "matrices": lambda n: r"\begin{matrix}" * n + "x" + r"\end{matrix}" * n,
    "negations": lambda n: r"\not" * n + "=",
    "switches": lambda n: r"\rm " * n + "x",
    "parentheses": lambda n: r"\left(" * n + "x" + r"\right)" * n,
    "accents": lambda n: r"\hat " * n + "x",
}


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("levels", [40, 200, 700, 100_000])
def test_deep_nesting_ends_nothing(name: str, levels: int) -> None:
    mathml(NESTED[name](levels), display=True)


@pytest.mark.parametrize(
    "piece",
    [
        "&",
        "'",
        "x",
        r"\\",
        r"\sin ",
        "{}",
        "_",
        "^",
        "$",
        r"\text{$",
        "%",
        r"\label{",
        r"\mathop{",
        r"\tag{1}",
        "[4pt]",
    ],
)
def test_formula_takes_no_time_and_no_room_whatever_it_repeats(piece: str) -> None:
    source = (piece * MAX_FORMULA)[:MAX_FORMULA]
    begun = thread_time()
    html = mathml(source, display=True) + mathml(
        rf"\begin{{matrix}}{source[:-40]}\end{{matrix}}", display=True
    )
    assert thread_time() - begun < 1
    assert len(html) <= 2 * (GROWTH_OF_FORMULA * len(source) + GROWTH_OF_FORMULA_AT_ONCE)


ROOT = Path(__file__).parents[1]
OPENINGS = [
    "(", "[", r"\{", r"\langle ", r"\lfloor ", r"\lceil ", r"\lvert ", r"\lVert ", r"\lbrace ", r"\lbrack ", r"\lgroup ",
    r"\ulcorner ", r"\llbracket ", "\u27e8", r"\mathopen(", r"\bigl(", r"\big(", r"\Bigl[", r"\left(\right.(", "|", r"\mid ",
]  # fmt: skip
BESIDE_OPENINGS = [
    "x", "^2", "_i", "i, ", "x | ", "a+", "=", "&", r"\\", "{", "}", "{)}", ")", "]", r"\rangle ", r"\text{)}", "^)", r"\hat)", r"\frac1)",
    r"\sin ", r"\neg ", r"\displaystyle ", r"\color{red}", r"\over ", r"\begin{matrix}", r"\end{matrix}", r"\left.", r"\right.",
    r"\sqrt[", r"\abs{", r"\norm(", r"\operatorname{f}", r"\middle|", "-", r"\,",
]  # fmt: skip


def aside(code: str) -> None:
    """Run what a fault would let hang or crash."""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=True)


@settings(max_examples=300, deadline=None, database=None)
@example("(", "", "x", 40)
@given(
    st.sampled_from(OPENINGS),
    st.lists(st.sampled_from(OPENINGS + BESIDE_OPENINGS), max_size=3).map("".join),
    st.lists(st.sampled_from(OPENINGS + BESIDE_OPENINGS), max_size=9).map("".join),
    st.sampled_from([40, MAX_FORMULA]),
)
def each_ends(opening: str, beside: str, behind: str, times: int) -> None:
    source = ((opening + beside) * times)[: MAX_FORMULA - len(behind)] + behind
    print(times, repr(opening + beside), repr(behind), flush=True)
    mathml(source, display=True)


def test_delimiters_that_nothing_closes_take_no_time() -> None:
    aside("from tests.test_formula import each_ends; each_ends()")


def test_thread_of_the_product_has_room_for_every_formula() -> None:
    stack_size(0)
    create_app(
        Settings.read(
            {"SECRET_KEY": "0" * 40, "REDIS_URL": "redis://127.0.0.1:1", "OPENAI_API_KEY": "0"}, local=False
        )
    )
    assert stack_size() == STACK_BYTES
    aside(rf"""
from threading import Thread, stack_size
from llmchat.formula import mathml

stack_size({STACK_BYTES // 4})
for source in r"\bm" * 999 + " x", r"\frac1^" * 428 + "x":
    thread = Thread(target=mathml, args=(source,), kwargs={{"display": True}})
    thread.start()
    thread.join()
""")


PIECES = [
    *WRITTEN, "\\", "{", "}", "&", "\\\\", "$", "_", "^", "<b>", "'", '"', " ", "x", r"\text{", r"\color{#f00}", r"\tag{<}",
    r"\begin{align}", r"\end{align}", r"\label{<b onclick=\"x\">}", r"\left", r"\right", r"\class{a}", r"\style{a:b}", "%", "#1",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join), st.booleans())
@example(r"\begin{align}a\label{x}\end{align}\eqref{x}", True)
def test_any_text_is_one_formula_or_none(source: str, display: bool) -> None:
    html = mathml(source, display=display)
    assert not html or re.fullmatch(r"<math(?: display=\"block\")?>.*</math>", html, re.DOTALL)
    tags = re.findall(r"</?[a-z]+|/>", html)
    assert all(not (one == "<math" and other == "<math") for one, other in pairwise(tags))
    assert " style=" not in html


def test_every_class_of_a_formula_has_its_style() -> None:
    css = (Path(__file__).parents[1] / "static" / "css" / "prose.css").read_text()
    assert {name for name in CLASSES if f".{name}" not in css} == set()
