"""The reasoner of lens-nano: rules that turn people's wording into the grammar its model was trained on."""

from lens.reasoner.nano_rules.reasoner import NanoReasoner
from lens.reasoner.nano_rules.worlds import FIRST_WORLD, GROWN_WORLD, NanoWorld, world_of

__all__ = ["FIRST_WORLD", "GROWN_WORLD", "NanoReasoner", "NanoWorld", "world_of"]
