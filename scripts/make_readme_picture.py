"""Generate docs/pictures/nano.png: the prompts to start with, one of each kind, as lens-nano draws them.

Run: python scripts/make_readme_picture.py   (the seeds are fixed; no image is selected by hand)
"""

import textwrap
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from lens import LensPipeline
from lens.nano.world_guide import examples

PICTURE = Path(__file__).parent.parent / "docs/pictures/nano.png"
SIDE_PX, SCALE, TEXT_PX, COLUMNS = 128, 2, 44, 4


def main() -> None:
    prompts = examples()
    pipeline = LensPipeline.from_pretrained("lens-nano", torch_dtype=torch.float32)
    generators = [torch.Generator().manual_seed(7) for _ in prompts]
    images = pipeline(list(prompts), height=SIDE_PX, width=SIDE_PX, generator=generators).images
    side, rows = SIDE_PX * SCALE, -(-len(prompts) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (side + 8), rows * (side + TEXT_PX)), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (prompt, image) in enumerate(zip(prompts, images, strict=True)):
        row, column = divmod(index, COLUMNS)
        left, top = column * (side + 8), row * (side + TEXT_PX)
        sheet.paste(image.resize((side, side), Image.Resampling.LANCZOS), (left, top))
        pen.multiline_text((left, top + side + 4), "\n".join(textwrap.wrap(prompt, 42)), fill="black")
    sheet.save(PICTURE)


if __name__ == "__main__":
    main()
