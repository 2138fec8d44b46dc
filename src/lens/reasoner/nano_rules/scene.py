"""What is understood of a prompt: things, their relations, a background and the text of a sign.

Knows nothing of words.
"""

from dataclasses import dataclass, field

from lens.nano.world.scene_spec import OPPOSITE, ObjectGroup, SceneSpec

SIDES = {"left": ("left of", "right"), "right": ("right of", "left"), "top": ("above", "bottom"),
         "bottom": ("below", "top")}  # fmt: skip
"""By side: the relation of what is there to the rest, and the opposite side."""


@dataclass
class Group:
    """Things of one class."""

    class_name: str
    count: int | None
    """None for several."""
    colour: str | None = None
    size: str | None = None
    place: str | None = None


@dataclass
class ReadScene:
    """A scene, and what stood in the way of reading it."""

    groups: list[Group] = field(default_factory=list)
    background: str | None = None
    relations: list[tuple[int, str, int]] = field(default_factory=list)
    text: str | None = None
    """Letters of a sign, as they are written."""
    is_near: bool = False
    """Whether two things are next to each other, on either side."""
    unknown: list[str] = field(default_factory=list)
    """Words that name nothing in the world, as they are written."""
    doubts: list[str] = field(default_factory=list)
    """Why the prompt can be read in two ways, or not at all."""
    notes: list[str] = field(default_factory=list)
    """What a user should know of how it was read."""

    @property
    def is_empty(self) -> bool:
        """Return whether nothing was understood."""
        return not self.groups and self.background is None and self.text is None

    def relate(self, first: int, relation: str, second: int) -> None:
        """Add a relation once, whichever way it is said; a thing is not related to itself."""
        known = {(first, relation, second), (second, OPPOSITE[relation], first)}
        if first != second and known.isdisjoint(self.relations):
            self.relations.append((first, relation, second))

    def spec(self) -> SceneSpec:
        """Return what an image of this scene must show, as files of prompts have it."""
        groups = tuple(
            ObjectGroup(group.class_name, group.count, group.colour, group.size, group.place)  # type: ignore[arg-type]
            for group in self.groups
        )
        text = None if self.text is None else self.text.upper()
        return SceneSpec(groups, self.background, tuple(self.relations), text)
