"""Packages of images become lists with real captions and licences that a manifest source reads."""

import importlib.util
import json
import stat
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from lens.data.io.entry import read_entry
from lens.data.sources.manifest import ManifestSource

SCRIPT = Path(__file__).parents[3] / "scripts" / "fetch_pictures.py"
spec = importlib.util.spec_from_file_location("fetch_pictures", SCRIPT)
assert spec is not None and spec.loader is not None
fetch_pictures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fetch_pictures)


def put_picture(path: Path, **texts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = PngImagePlugin.PngInfo()
    for name, value in texts.items():
        facts.add_text(name, value)
    Image.new("RGB", (4, 3)).save(path, "PNG", pnginfo=facts)


def put_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def package_of(name: str):
    (found,) = (one for one in fetch_pictures.PACKAGES if one.name == name)
    return found


def listed(name: str, folder: Path) -> list[dict]:
    package = package_of(name)
    put_text(folder / name / "usr/share/doc" / name / "copyright", f"Terms:\n{package.says}\n more.")
    fetch_pictures.write_list(package, folder)
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_stamps_have_an_english_caption_and_its_translations(tmp_path):
    root = tmp_path / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"
    put_picture(root / "animals/fox.png")
    lines = ("A red fox.", "de.utf8=Ein Fuchs.", "pt_BR.utf8=Raposa", "bad line", "fr.utf8= ")
    put_text(root / "animals/fox.txt", "\n".join(lines))
    put_picture(root / "animals/fox_mirror.png")
    put_text(root / "animals/owl.svg", "<svg/>")
    put_text(root / "animals/owl.txt", "An owl.")
    assert listed("tuxpaint-stamps-default", tmp_path) == [
        {
            "licence": "GPL-2.0-or-later (Tux Paint stamps)",
            "location": "tuxpaint-stamps-default/usr/share/tuxpaint/stamps/animals/fox.png",
            "caption": "A red fox.",
            "captions": {"de": "Ein Fuchs.", "pt_BR": "Raposa"},
        }
    ]


def test_clip_art_has_its_subject_its_folders_and_who_drew_it(tmp_path):
    root = tmp_path / "openclipart-png/usr/share/openclipart/png"
    put_picture(root / "food/fruit/banana.png", Title="Clipart by Ann Lee - pear", Author="Ann Lee")
    put_picture(root / "food/red_kettle_ann_01.png", Title="Red Kettle", Author="Ann Lee")
    (root / "food/kettle.png").symlink_to(root / "food/red_kettle_ann_01.png")
    put_text(root / "food/zz.png", "no picture, and left for the build to say so")
    rows = listed("openclipart-png", tmp_path)
    assert [(row["caption"], row.get("author"), row["licence"]) for row in rows] == [
        ("banana, food, fruit", "Ann Lee", "CC-PDDC"),
        ("Red Kettle, food", "Ann Lee", "CC-PDDC"),
        ("zz, food", None, "CC-PDDC"),
    ]


@pytest.mark.parametrize(
    ("stem", "title", "author", "subject"),
    [
        ("key_jordan_wiens_01", "Key", "Jordan Wiens", "Key"),
        ("banana", "Clipart by Nicu Buculei - pear", "Nicu Buculei", "banana"),
        ("spain_galicia", "Clipart by Pedro Garcia - Galicia", "Pedro Garcia", "Galicia"),
        ("simple_c_7", "card", "Nicu Buculei", "simple c 7"),
        ("align_objs", "Part of the Flat Icon Collection", "", "align objs"),
        ("scissors_03", "", "", "scissors"),
        ("gallo_di_profilo_archite_01", "", "Architetto Francesco", "gallo di profilo"),
        ("star_34pt10step", "gramastar", "", "star 34 pt 10 step"),
        ("01", "", "", "01"),
    ],
)
def test_clip_arts_subject_is_the_title_only_where_the_files_name_agrees(stem, title, author, subject):
    assert fetch_pictures.clip_art_subject(stem, title, author) == subject


def test_wallpapers_have_names_authors_and_licences_of_their_own(tmp_path):
    root = tmp_path / "plasma-workspace-wallpapers/usr/share/wallpapers"
    facts = {"Name": "Ice", "Name[de]": "Eis", "License": "CC-BY-SA-4.0", "Authors": [{"Name": "Ann"}]}
    put_text(root / "Ice/metadata.json", json.dumps({"KPlugin": facts}))
    for name in ("images/9x6.png", "images_dark/9x6.png", "screenshot.png"):
        put_picture(root / "Ice/contents" / name)
    lines = "Name=Sea\nName[fr]=Mer\nX-KDE-PluginInfo-Name=SEA\nX-KDE-PluginInfo-Author=Bo\n"
    put_text(root / "Sea/metadata.desktop", f"[Desktop Entry]\n{lines}")
    put_picture(root / "Sea/contents/images/9x6.png")
    put_picture(root / "Nameless/contents/images/9x6.png")
    rows = listed("plasma-workspace-wallpapers", tmp_path)
    assert [(row["caption"], row["captions"], row["author"], row["licence"]) for row in rows] == [
        ("Ice, a desktop wallpaper", {"de": "Eis"}, "Ann", "CC-BY-SA-4.0"),
        ("Ice, a dark desktop wallpaper", {"de": "Eis"}, "Ann", "CC-BY-SA-4.0"),
        ("Sea, a desktop wallpaper", {"fr": "Mer"}, "Bo", "GPL-2.0-or-later"),
    ]


def test_lists_are_read_by_a_manifest_source(tmp_path):
    root = tmp_path / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"
    put_picture(root / "fox.png")
    put_text(root / "fox.txt", "Ein Fuchs: \u00fc.")
    listed("tuxpaint-stamps-default", tmp_path)
    source = ManifestSource(path=tmp_path / "tuxpaint-stamps-default.jsonl", location="location")
    (entry,) = source.entries()
    assert (entry.caption, entry.licence) == ("Ein Fuchs: \u00fc.", "GPL-2.0-or-later (Tux Paint stamps)")
    assert read_entry(entry) == (root / "fox.png").read_bytes()


def test_a_package_whose_terms_have_changed_or_that_has_no_image_is_refused(tmp_path):
    package = package_of("openclipart-png")
    terms = tmp_path / "openclipart-png/usr/share/doc/openclipart-png/copyright"
    put_text(terms, "All rights reserved.")
    with pytest.raises(SystemExit, match="does not say 'creative commons Public Domain"):
        fetch_pictures.write_list(package, tmp_path)
    put_text(terms, package.says)
    with pytest.raises(SystemExit, match="holds no picture with a caption"):
        fetch_pictures.write_list(package, tmp_path)


def test_a_package_is_fetched_once_and_an_unpacking_that_was_cut_off_is_made_again(tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    for name, script in {
        "apt-get": 'echo "$2" >> "$CALLS"; [ "$2" != gone ] && touch "$2_1_all.deb"',
        "dpkg-deb": '[ ! -e "$3" ] && mkdir "$3" && touch "$3/whole"',
    }.items():
        put_text(programs / name, f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    folder = tmp_path / "out"
    put_text(folder / "pack.partial" / "half", "")
    assert fetch_pictures.fetch("pack", folder) and not fetch_pictures.fetch("pack", folder)
    assert [path.name for path in (folder / "pack").iterdir()] == ["whole"]
    assert (tmp_path / "calls").read_text().split() == ["pack"] and not list((folder / "downloads").iterdir())
    with pytest.raises(SystemExit, match="apt-get cannot download gone"):
        fetch_pictures.fetch("gone", folder)
