"""Options read from a factory's signature: names, types, defaults, and what an error says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Optional, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnpipe.errors import UsageError
from rnnpipe.options import bind_options, convert, describe, list_options


class Factory:
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        forget_bias: float = 1.0,
        form: Literal["full", "light"] = "full",
        layers: int | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        anything=None,  # type: ignore[no-untyped-def]
    ) -> None:
        self.given = (input_size, hidden_size, bias, forget_bias, form, layers, betas, anything)


def bind(options: dict[str, Any], factory: Callable[..., Any] = Factory) -> dict[str, Any]:
    return bind_options(factory, options, "cell 'test'", reserved=2, supplied={"bias"})


def test_options_are_the_signature() -> None:
    options = {option.name: option for option in list_options(Factory, reserved=2, supplied={"bias"})}
    assert list(options) == ["forget_bias", "form", "layers", "betas", "anything"]
    assert (options["forget_bias"].annotation, options["forget_bias"].default) == (float, 1.0)
    assert options["anything"].annotation is None
    assert str(options["form"]) == "form='full'"
    assert [str(option) for option in list_options(Factory)][:2] == ["input_size", "hidden_size"]


def test_a_function_is_a_factory_too() -> None:
    def factory(given: str, /, rate: float, *args: int, steps: int = 3, **rest: int) -> None: ...

    assert [str(option) for option in list_options(factory)] == ["rate", "steps=3"]
    assert bind_options(factory, {"rate": 1}, "x") == {"rate": 1.0}


def test_annotations_that_cannot_be_resolved_accept_anything() -> None:
    def factory(rate: NoSuchType = 3) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert bind_options(factory, {"rate": "fast"}, "x") == {"rate": "fast"}


def test_bound_options_call_the_factory() -> None:
    bound = bind({"forget_bias": 2, "layers": 3, "betas": [0.5, 1], "form": "light"})
    assert bound == {"forget_bias": 2.0, "layers": 3, "betas": (0.5, 1), "form": "light"}
    assert isinstance(bound["forget_bias"], float)
    assert Factory(1, 2, bias=False, **bound).given == (1, 2, False, 2.0, "light", 3, (0.5, 1), None)
    assert bind({}) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"forget_bais": 1},
            r"cell 'test' has no option 'forget_bais'\. Did you mean 'forget_bias'\? Accepted: forget_b",
        ),
        ({"xyz": 1}, r"cell 'test' has no option 'xyz'\. Accepted: forget_bias=1\.0"),
        ({"bias": True}, "has no option 'bias'"),  # supplied by the program
        ({"input_size": 3}, "has no option 'input_size'"),  # likewise
        ({"forget_bias": "x"}, "option 'forget_bias' of cell 'test': 'x' is not accepted; it takes a number"),
        ({"forget_bias": True}, "True is not accepted; it takes a number"),
        ({"layers": 1.0}, r"1\.0 is not accepted; it takes a whole number or nothing"),
        ({"layers": False}, "False is not accepted; it takes a whole number or nothing"),
        ({"form": "heavy"}, "'heavy' is not accepted; it takes 'full' or 'light'"),
        ({"betas": 0.9}, r"0\.9 is not accepted; it takes a list of a number"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bind(options)


def test_a_missing_option() -> None:
    def factory(order: int, rate: float = 0.1) -> None: ...

    with pytest.raises(UsageError, match=r"cleaner 'x' needs the option 'order'\. Accepted: order, rate=0\.1\."):
        bind_options(factory, {"rate": 1}, "cleaner 'x'")
    with pytest.raises(UsageError, match=r"cell 'y' has no option 'a'\. Accepted: none"):
        bind_options(lambda: None, {"a": 1}, "cell 'y'")


class Thing:
    pass


T = TypeVar("T")
THING = Thing()


@pytest.mark.parametrize(
    ("value", "annotation", "converted"),
    [
        (1, int, 1),
        (1, float, 1.0),
        (1.5, float, 1.5),
        (1, int | float, 1),
        (1.5, int | float, 1.5),
        (1, float | int, 1),
        (True, bool, True),
        ("1", str, "1"),
        (None, int | None, None),
        (None, Optional[int], None),  # noqa: UP045
        (3, Optional[int], 3),  # noqa: UP045
        ("b", Literal["a", "b"], "b"),
        ([1, 2], tuple, (1, 2)),
        ((1, 2), list, [1, 2]),
        ([1, 2], Sequence[int], [1, 2]),
        ([1, 2], tuple[int, ...], (1, 2)),
        ({"a": 1}, dict, {"a": 1}),
        ("any", Any, "any"),
        ("any", None, "any"),
        ("any", T, "any"),
        (THING, Thing, THING),
    ],
)
def test_what_is_accepted(value: Any, annotation: Any, converted: Any) -> None:
    result = convert(value, annotation, "here")
    assert result == converted
    assert type(result) is type(converted)


@pytest.mark.parametrize(
    ("value", "annotation", "accepted"),
    [
        ("1", int, "a whole number"),
        (1.0, int, "a whole number"),
        (True, int, "a whole number"),
        (True, float, "a number"),
        (None, float, "a number"),
        (1, bool, "true or false"),
        (1, str, "text"),
        ("x", int | None, "a whole number or nothing"),
        ("c", Literal["a", "b"], "'a' or 'b'"),
        (["a"], Literal["a", "b"], "'a' or 'b'"),
        ("ab", list, "a list"),
        ("ab", tuple[str, ...], "a list of text"),
        ([1], dict, "a table"),
        (1, Thing, "Thing"),
    ],
)
def test_what_is_refused(value: Any, annotation: Any, accepted: str) -> None:
    with pytest.raises(UsageError) as raised:
        convert(value, annotation, "here")
    assert str(raised.value) == f"here: {value!r} is not accepted; it takes {accepted}."


@pytest.mark.parametrize(("value", "annotation"), [([3], tuple[str, ...]), (["x"], list[int]), ([1], tuple[int, int])])
def test_the_members_of_a_list_are_checked(value: Any, annotation: Any) -> None:
    with pytest.raises(UsageError):
        convert(value, annotation, "here")


def test_a_number_too_large_for_a_float() -> None:
    with pytest.raises(UsageError):
        convert(10**400, float, "here")


plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats()
    | st.text()
    | st.lists(st.integers())
    | st.just({})
)
annotations = st.sampled_from(
    [int, float, bool, str, dict, list, int | None, float | None, str | None, bool | int, Literal["a", 1]]
)


@given(plain, annotations)
@settings(deadline=None)
def test_a_value_is_of_the_annotated_type_or_an_error(value: Any, annotation: Any) -> None:
    try:
        result = convert(value, annotation, "here")
    except UsageError as error:
        assert describe(annotation) in str(error)
        return
    if isinstance(annotation, type):
        assert type(result) is annotation
    if value == value:
        assert result == value
