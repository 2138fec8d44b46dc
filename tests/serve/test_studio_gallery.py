"""The gallery's handlers: pages, the dialog of one image, actions on several, and comparing two."""

import re
import zipfile

import pytest
from fake_engine import image_metadata, render
from PIL import Image

from lens.sampling.image_metadata import encode_image_file
from lens.serve.engine.request import GenerationRequest
from lens.serve.studio import gallery_handlers
from lens.serve.studio.gallery import Gallery
from lens.serve.studio.gallery_handlers import GalleryHandlers, GallerySearch

ALL = GallerySearch()
PROMPTS = ("a fox", "a bear", "two foxes", "a lemon", "a fox in snow")


@pytest.fixture
def shown(tmp_path):
    """Handlers of a gallery with five images, the last prompt the newest; files as if copied in."""
    folder = tmp_path / "gallery"
    folder.mkdir()
    for number, prompt in enumerate(PROMPTS):
        request = GenerationRequest("lens-nano", prompt, number, 16, 16, 4, 1.0)
        with (folder / f"{number}.png").open("wb") as file:
            encode_image_file(render(request), image_metadata(request), "png", file)
    return GalleryHandlers(Gallery(folder))


def names(html):
    return re.findall(r'data-action="open" data-name="([^"]+)" title', html)


def button(html, text):
    [found] = re.findall(f"<button[^>]*>{text}</button>", html)
    return found


def test_pages_hold_every_image_once_and_a_page_too_far_is_the_last(shown, monkeypatch):
    monkeypatch.setattr(gallery_handlers, "PAGE_SIZE", 2)
    pages = [shown.search(ALL._replace(page=page))[0] for page in (1, 2, 3, 9)]
    assert [names(page) for page in pages] == [["4.png", "3.png"], ["2.png", "1.png"], ["0.png"], ["0.png"]]
    assert "5 images, page 1 of 3" in pages[0]
    assert "disabled" in button(pages[0], "Newer") and "disabled" not in button(pages[0], "Older")
    assert "disabled" in button(pages[2], "Older") and 'data-page="2"' in button(pages[2], "Newer")
    few, is_any = shown.search(GallerySearch("fox snow"))
    assert names(few) == ["4.png"] and is_any and "Older" not in few
    assert shown.search(GallerySearch("whale")) == (gallery_handlers.gallery_html.NOTHING_FOUND, False)


def test_the_dialog_leads_to_the_neighbours_also_on_another_page(shown, monkeypatch):
    monkeypatch.setattr(gallery_handlers, "PAGE_SIZE", 2)
    first = shown.act_on_one("open", "4.png", ALL)
    assert first.list_html is None, "the page that is shown stays as it is"
    assert "1 of 5" in first.viewer_html and "disabled" in button(first.viewer_html, "Previous")
    assert 'data-name="3.png"' in button(first.viewer_html, "Next")
    third = shown.act_on_one("open", "2.png", ALL)
    assert names(third.list_html) == ["2.png", "1.png"], "the list follows to the second page"
    assert 'data-name="3.png"' in button(third.viewer_html, "Previous")
    foxes = shown.act_on_one("open", "2.png", GallerySearch("fox"))
    assert 'data-name="4.png"' in button(foxes.viewer_html, "Previous"), "neighbours are those of the search"
    last = shown.act_on_one("open", "0.png", ALL).viewer_html
    assert "disabled" in button(last, "Next") and 'download="0.png"' in last


def test_one_image_becomes_a_favourite_and_is_deleted_from_the_dialog(shown):
    view = shown.act_on_one("favourite", "2.png", ALL)
    assert shown.gallery.favourites() == {"2.png"} and 'aria-pressed="true"' in view.viewer_html
    starred = GallerySearch(only_favourites=True)
    gone = shown.act_on_one("favourite", "2.png", starred)
    assert shown.gallery.favourites() == set() and "no longer among the favourites" in gone.viewer_html
    view = shown.act_on_one("delete", "3.png", ALL)
    assert 'data-name="2.png" aria-label' in view.viewer_html and "3.png" not in view.list_html
    view = shown.act_on_one("delete", "0.png", ALL)
    assert 'data-name="1.png" aria-label' in view.viewer_html, "the last one's newer neighbour"
    assert shown.act_on_one("open", "3.png", ALL).viewer_html == "", "what is gone cannot be opened"


def test_several_images_are_favoured_packed_and_deleted_at_once(shown):
    chosen = ["0.png", "3.png", "gone.png", "../secret.png"]
    shown.set_favourites(["0.png"], True)
    shown.act("favour", chosen[:2], ALL)
    assert shown.gallery.favourites() == {"0.png", "3.png"}, "one of them had a star already"
    shown.act("favour", chosen[:2], ALL)
    assert shown.gallery.favourites() == set()
    view = shown.act("zip", chosen, ALL)
    with zipfile.ZipFile(view.zip_path) as packed:
        assert packed.namelist() == ["0.png", "3.png"]
    view = shown.act("delete", chosen, ALL)
    assert names(view.list_html) == ["4.png", "2.png", "1.png"]
    path, line = shown.export_zip(GallerySearch("fox"))
    with zipfile.ZipFile(path) as packed:
        assert packed.namelist() == ["4.png", "2.png"] and "2 images is ready" in line
    assert shown.export_zip(GallerySearch("whale"))[0] is None


def test_two_images_are_compared_and_what_is_missing_is_told(shown):
    html, sheet = shown.compare("0.png", "1.png")
    assert "a bear" in html and Image.open(sheet).width > 32
    for first, second, missing in (("0.png", None, "B"), (None, "0.png", "A"), ("gone.png", None, "A and B")):
        html, sheet = shown.compare(first, second)
        assert f"Select {missing} in the gallery" in html and sheet is None
