"""Options that choose a reasoner, shared by `lens generate` and `lens reasoner`.

Off means off: unless a reasoner is asked for, neither environment nor files are read.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lens.errors import SettingError
from lens.files import config_folder

if TYPE_CHECKING:
    from lens.reasoner.refusal import RefusalPolicy
    from lens.reasoner.settings import Backend, ReasonerSettings

REASONER_HELP = (
    "URL of a language model, gpt-oss, nano, a folder of transformers, or a YAML file (LENS_REASONER or "
    "reasoner.yaml in ~/.config/lens, else by the model)."
)
MODEL_HELP = "Name of the language model at the URL."
SYSTEM_PROMPT_HELP = "System prompt of the reasoner: a name or a text file (general)."
POLICY_HELP = "YAML file with the categories that the reasoner refuses (built in)."
REASONER_VARIABLE = "LENS_REASONER"
SETTINGS_FILE = "reasoner.yaml"
"""In the folder of a person's own files."""
YAML_SUFFIXES = (".yaml", ".yml")
LOCAL_BACKENDS = ("gpt-oss", "transformers")
LOCAL_TIME_LIMIT_S = 3600.0
"""Of a prompt for a model of this machine: an answer may take many minutes on a CPU, and Ctrl-C stops it."""
URL = re.compile(r"https?://")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
FORMS = "the URL of an endpoint, gpt-oss, nano, a folder or hub id of transformers, or a YAML file"
OPTION_OF = {
    "reasoner.system_prompt": "--system-prompt", "reasoner.categories": "--policy",
    "reasoner.backend": "--reasoner", "reasoner.model": "--reasoner", "reasoner.endpoint": "--reasoner",
    "text_encoder": "--reasoner gpt-oss",
}  # fmt: skip
"""Options by the settings that they fill, for messages."""


class ReasonerOptions(NamedTuple):
    """What the options say of the reasoner; None is not given."""

    reasoner: str | None = None
    model: str | None = None
    system_prompt: str | None = None
    policy: Path | None = None

    def check(self, is_used: bool) -> None:
        """Raise SettingError for options that cannot be used, or that are given without --reason."""
        if is_used:
            self.settings("gpt-oss")
            self.refusal_policy()
            return
        names = ("--reasoner", "--reasoner-model", "--system-prompt", "--policy")
        for name, value in zip(names, self, strict=True):
            if value is not None:
                raise SettingError(name, str(value), "to be given with --reason", "Add --reason.")

    def settings(self, default_backend: "Backend") -> "ReasonerSettings":
        """Return the settings of the reasoner: of the options, the environment, a file, or the default.

        Raises: SettingError for what cannot be used.
        """
        from lens.reasoner.settings import ReasonerSettings
        from lens.reasoner.system_prompts import read_system_prompt

        stated, source = self._stated_values()
        values: dict[str, Any] = {"backend": default_backend} if stated is None else stated
        if self.model is not None:
            if values.get("backend") != "endpoint":
                raise SettingError("--reasoner-model", self.model, "an endpoint", "Add --reasoner URL.")
            values["endpoint"] = {**(values.get("endpoint") or {}), "model": self.model}
        if values.get("backend") == "nano":
            given = {"--system-prompt": self.system_prompt, "--policy": self.policy}
            for name, value in given.items():
                if value is not None:
                    needs = "a reasoner with a language model"
                    raise SettingError(name, str(value), needs, "The rule engine of nano has none.")
        elif self.system_prompt is not None:
            read_system_prompt(self.system_prompt, "--system-prompt")
            values["system_prompt"] = self.system_prompt
        if values.get("backend") in LOCAL_BACKENDS:
            values.setdefault("time_limit_s", LOCAL_TIME_LIMIT_S)
        return ReasonerSettings.of(values, source=source)

    def refusal_policy(self) -> "RefusalPolicy":
        """Return what is refused: by the policy file, or by the built-in categories.

        Whoever runs the command can leave the reasoner out. So without a policy file of their own, a model
        that does not answer refuses nothing.
        Raises: SettingError.
        """
        from lens.config import read_recipe
        from lens.serve.safety.moderation import DEFAULT_POLICY, PolicySettings

        path = self.policy or DEFAULT_POLICY
        if not path.is_file():
            raise SettingError("--policy", str(path), "a YAML file that exists", "Check the path.")
        policy = PolicySettings.of(read_recipe(path, setting="--policy"), source=str(path)).reasoner
        return policy if self.policy else policy.model_copy(update={"when_down": "allow"})

    def _stated_values(self) -> tuple[dict[str, Any] | None, str]:
        """Return the values of settings that somebody chose, or None, and what names their place."""
        setting, stated = "--reasoner", self.reasoner
        if stated is None and os.environ.get(REASONER_VARIABLE):
            setting, stated = REASONER_VARIABLE, os.environ[REASONER_VARIABLE]
        file = config_folder() / SETTINGS_FILE
        if stated is None and file.is_file():
            setting, stated = "the reasoner's settings", str(file)
        if stated is None:
            return None, setting
        if stated in ("nano", "gpt-oss"):
            return {"backend": stated}, setting
        if URL.match(stated):
            if self.model is None:
                fix = "Or name both in a YAML file: see docs/how-to/reason.md."
                needs = f"the name of a model at {stated}"
                raise SettingError("--reasoner-model", None, needs, fix)
            return {"backend": "endpoint", "endpoint": {"url": stated}}, setting
        if stated.lower().endswith(YAML_SUFFIXES):
            from lens.config import read_recipe

            return read_recipe(Path(stated), setting=setting), stated
        if Path(stated).is_dir() or HUB_ID.fullmatch(stated):
            return {"backend": "transformers", "model": stated}, setting
        raise SettingError(setting, stated, FORMS, "For example --reasoner http://127.0.0.1:8000/v1.")


@contextmanager
def as_options() -> Iterator[None]:
    """Let errors of the reasoner's settings name the options that fill them."""
    try:
        yield
    except SettingError as error:
        if error.setting in OPTION_OF:
            error.rename(OPTION_OF[error.setting])
        raise
