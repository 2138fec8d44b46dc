"""Caption prompts for a vision-language model: a dense caption, and a brief one for ablations.

Paper: Lens report, data section (captions): salient objects with attributes, relations, counts, background;
visible text in its own language and no remark where there is none; well-known content by name; English.
"""

from typing import Literal, NamedTuple

CaptionKind = Literal["dense", "brief"]


class CaptionPrompt(NamedTuple):
    """A prompt for a caption; the version is part of the cache key."""

    version: str
    system: str
    user: str
    max_tokens: int


CAPTION_PROMPTS: dict[CaptionKind, CaptionPrompt] = {
    "dense": CaptionPrompt(
        version="dense-1",
        system=(
            "You write captions that a text-to-image model is trained on. A reader who sees only your words "
            "should be able to draw the picture."
        ),
        user=(
            "Describe this picture in one English paragraph of at most 500 words, most important things "
            "first. Say for every salient object or person what it is, its colour, shape, size, material, "
            "texture, pose and state; how many there are of a kind; where things are in the picture and how "
            "they lie to one another; the background, the light, the viewpoint, and the kind of picture, "
            "such as photograph, drawing or poster. Put any text that can be read in double quotes, letter "
            "by letter, in its own language and script, and say where it stands and how it looks. If there "
            "is no text, do not mention text. Name well-known people, places, works, brands and characters. "
            "State only what can be seen: no guesses, no opinions, no remarks about the task. Begin with "
            "the content itself, not with words such as 'the image shows'."
        ),
        max_tokens=800,
    ),
    "brief": CaptionPrompt(
        version="brief-1",
        system="You write short captions of pictures.",
        user="Describe this picture in one English sentence of at most 20 words. Begin with the content.",
        max_tokens=60,
    ),
}
