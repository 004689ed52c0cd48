"""What a package requires of rnnpipe, against the library that installers use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from rnnpipe.plugins.versions import accepts, requirement_on_rnnpipe

numbers = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
blanks = st.sampled_from(["", " "])


@st.composite
def clauses(draw: st.DrawFn) -> str:
    operator = draw(st.sampled_from(["~=", "==", "!=", "<=", ">=", "<", ">"]))
    version = draw(numbers)
    if operator == "~=" and "." not in version:
        version += ".0"
    wildcard = operator in ("==", "!=") and draw(st.booleans())
    return f"{draw(blanks)}{operator}{draw(blanks)}{version}{'.*' if wildcard else ''}"


@given(st.lists(clauses(), max_size=3).map(",".join), numbers)
def test_a_release_is_accepted_as_installers_accept_it(specifiers: str, version: str) -> None:
    assert accepts(specifiers, version) == SpecifierSet(specifiers).contains(version)


@pytest.mark.parametrize(
    ("specifiers", "version", "accepted"),
    [
        (">=0.2", "0.2.0.dev3", True),  # by its release numbers alone
        ("<0.2", "0.2.0rc1", False),
        (">=0.2rc1", "0.1", True),  # a clause of another form is left to the installer
        ("===0.3", "0.1", True),
        (">=0.1, <0.2", "0.1.7", True),
        ("", "0.1", True),
    ],
)
def test_other_forms(specifiers: str, version: str, accepted: bool) -> None:
    assert accepts(specifiers, version) == accepted


@pytest.mark.parametrize(
    ("requirements", "found"),
    [
        (["rnnpipe"], ""),
        (["torch>=2", "rnnpipe>=0.1,<0.2"], ">=0.1,<0.2"),
        (["rnnpipe (>=0.1)"], ">=0.1"),
        (["RNNpipe[plot] ~=0.1.2 "], "~=0.1.2"),
        (["rnnpipe<0.3", "rnnpipe>=0.1"], "<0.3,>=0.1"),
        (["rnnpipe-mingru>=3", "rnnpipes==1"], ""),
        (['rnnpipe>=9; extra == "new"'], ""),  # a marker is left to the installer
        ([], ""),
    ],
)
def test_the_requirement_of_a_distribution(requirements: list[str], found: str) -> None:
    assert requirement_on_rnnpipe(requirements) == found
