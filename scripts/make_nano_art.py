"""Extract the sprites of the nano world from the Noto emoji package to src/lens/nano/world/sprites.json.

Run: python scripts/make_nano_art.py   (needs npm; the art is Apache 2.0, see src/lens/nano/NOTICE)
"""

import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

from lens.nano.world.objects import OBJECT_CLASSES

PACKAGE = "@iconify-json/noto@1.2.9"
ART = Path(__file__).parent.parent / "src/lens/nano/world/sprites.json"


def icons_of(package: str) -> dict:
    """Return the icon set of an npm package in the Iconify format."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", package, "--silent"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            member = archive.extractfile("package/icons.json")
            assert member is not None
            return json.load(member)


def main() -> None:
    icons = icons_of(PACKAGE)
    frame = {"width": icons["width"], "height": icons["height"]}
    bodies = {thing.icon: frame | icons["icons"][thing.icon] for thing in OBJECT_CLASSES.values()}
    ART.write_text(json.dumps({"source": PACKAGE, "license": "Apache-2.0", "icons": bodies}, indent=0) + "\n")
    print(f"{ART}: {len(bodies)} icons, {ART.stat().st_size} bytes")


if __name__ == "__main__":
    main()
