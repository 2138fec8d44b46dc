"""The table of stages: each entry has its classes, which the loop and recipes rely on."""

import pytest

from lens.errors import SettingError
from lens.train.run import STAGES, parse_settings
from lens.train.settings.run import RunSettings
from lens.train.stages.base import AlternatingStage

ALTERNATING = ("rl", "distill")
MEMBERS = ("ema_parts", "extra_state", "active_parts", "after_update")


@pytest.mark.parametrize("name", STAGES)
def test_every_entry_has_settings_and_a_stage_with_the_methods_of_one(name):
    entry = STAGES[name]
    assert issubclass(entry.settings_class, RunSettings)
    for method in ("objective", "evaluate", "sample_grid", "export"):
        assert callable(getattr(entry.stage_class, method))


@pytest.mark.parametrize("name", ALTERNATING)
def test_stages_that_alternate_have_every_member_that_the_loop_asks_for(name):
    members = {*AlternatingStage.__annotations__, *vars(AlternatingStage)} - {"__module__"}
    assert {member for member in members if not member.startswith("_")} == set(MEMBERS)
    stage = STAGES[name].stage_class
    assert set(MEMBERS) - set(dir(stage)) <= {"extra_state"}, "an attribute that __init__ sets"


@pytest.mark.parametrize("name", ["dream", None, ["vae"]])
def test_an_unknown_stage_is_refused_with_the_names_of_all(name):
    with pytest.raises(SettingError, match="one of vae, language, pretrain, denoiser, rl, distill"):
        parse_settings(name, {}, "the test")
