"""Errors say which setting, what it is, what it needs and what to do, and stay what Python code expects."""

import pytest

from lens import errors


def test_a_setting_error_reads_as_one_sentence_and_a_remedy():
    error = errors.SettingError("height", 1000, "a multiple of 16", "Try 992.")
    assert str(error) == "height is 1000, but it needs a multiple of 16. Try 992."
    assert error.setting == "height"


def test_a_setting_error_repeats_the_beginning_of_a_long_value():
    text = str(errors.SettingError("size", "9" * 100_000, "the form WIDTHxHEIGHT"))
    assert text.startswith("size is '999") and len(text) < 700
    assert text.endswith("... (100002 characters), but it needs the form WIDTHxHEIGHT.")


def test_a_setting_error_without_a_remedy_ends_with_its_sentence():
    assert (
        str(errors.SettingError("solver", "x", "a known name")) == "solver is 'x', but it needs a known name."
    )


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.SettingError, ValueError),
        (errors.ShapeError, ValueError),
        (errors.CheckpointError, ValueError),
        (errors.MemoryNeedError, MemoryError),
        (errors.NonFiniteError, ArithmeticError),
    ],
)
def test_every_kind_is_a_lens_error_and_the_builtin_that_others_catch(kind, builtin):
    assert issubclass(kind, errors.LensError) and issubclass(kind, builtin)


def test_a_cancelled_call_is_no_bad_value():
    assert issubclass(errors.GenerationCancelledError, errors.LensError) and not issubclass(
        errors.GenerationCancelledError, ValueError
    )
