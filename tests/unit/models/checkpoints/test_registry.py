"""Names of models, and what happens when their weights are not here. No test touches a network."""

import subprocess
import sys

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from repository import ROOT

from lens.errors import CheckpointError, SettingError
from lens.models.checkpoints import registry
from lens.models.checkpoints.registry import KNOWN_MODELS, known_model, resolve_model


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub in memory: what is on disk, what a download answers, and what was asked for."""

    class Hub:
        on_disk, online, asked = {}, {}, []

        def snapshot_download(self, hub_id, *, revision=None, local_files_only=False, allow_patterns=None):
            self.asked.append((hub_id, revision, "disk" if local_files_only else allow_patterns))
            answer = (self.on_disk if local_files_only else self.online).get(hub_id)
            if isinstance(answer, Exception):
                raise answer
            if answer is None:
                raise LocalEntryNotFoundError("cannot find the appropriate snapshot folder")
            return str(answer)

    hub = Hub()
    hub.on_disk, hub.online, hub.asked = {}, {}, []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return hub


def model_folder(path, *, is_complete=True):
    for component, stem in catalog_stems().items():
        (path / component).mkdir(parents=True)
        if is_complete or component != "vae":
            (path / component / f"{stem}.safetensors").write_bytes(b"weights")
    (path / "model_index.json").write_text("{}")
    return path


def catalog_stems():
    from lens.models.checkpoints.diffusers_folder import WEIGHTS_STEMS

    return WEIGHTS_STEMS


def test_the_table_holds_the_variants_and_their_defaults():
    defaults = {
        name: (m.num_inference_steps, m.guidance_scale, m.base_resolution) for name, m in KNOWN_MODELS.items()
    }
    assert defaults == {
        "lens-nano": (20, 2.0, 128),
        "lens-nano-turbo": (4, 1.0, 128),
        "lens-nano-base": (20, 2.0, 128),
        "lens": (20, 5.0, 1024),
        "lens-turbo": (4, 1.0, 1024),
        "lens-base": (50, 5.0, 1024),
    }


def test_a_hub_id_of_a_mirror_is_the_model_it_mirrors():
    for hub_id in (
        "YuCollection/Lens-Turbo-Diffusers",
        "Jinstudio/Lens-Turbo",
        "sceneworks/lens-turbo",
        "microsoft/Lens-Turbo",
    ):
        model = known_model(hub_id)
        assert model is not None and model.name == "lens-turbo"
    assert known_model("somebody/else") is None


def test_each_source_says_where_its_weights_come_from():
    for model in KNOWN_MODELS.values():
        assert all("mirror" in source.provenance or source.is_withdrawn for source in model.sources)


def test_a_folder_is_itself_and_a_folder_of_something_else_says_what_it_lacks(tmp_path):
    folder = model_folder(tmp_path / "mine")
    assert resolve_model(folder) == folder and resolve_model(str(folder)) == folder
    (folder / "transformer" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"is one component.*Give the folder above it"):
        resolve_model(folder / "transformer")
    with pytest.raises(CheckpointError, match=r"has no model_index.json"):
        resolve_model(tmp_path)


def test_an_unknown_name_lists_the_known_ones_and_the_nearest():
    with pytest.raises(
        SettingError,
        match=r"Did you mean lens-turbo. Known: lens-nano, lens-nano-turbo, lens-nano-base, lens, lens-turbo",
    ):
        resolve_model("lens-turb")


def test_a_packaged_model_that_is_not_here_says_which_recipe_makes_it(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "PACKAGED_WEIGHTS", tmp_path)
    for name, recipe in (("lens-nano-base", "pretrain"), ("lens-nano", "rl"), ("lens-nano-turbo", "turbo")):
        with pytest.raises(CheckpointError, match=rf"^{name} is not in this installation .*/{recipe}\.yaml"):
            resolve_model(name)
        assert (ROOT / KNOWN_MODELS[name].recipe).is_file()


def test_a_model_on_disk_is_taken_without_a_download(hub, tmp_path):
    hub.on_disk["Jinstudio/Lens"] = model_folder(tmp_path / "jin")
    assert resolve_model("lens") == tmp_path / "jin"
    assert all(kind == "disk" for _, _, kind in hub.asked)


def test_a_half_fetched_model_is_fetched_on(hub, tmp_path):
    half = model_folder(tmp_path / "half", is_complete=False)
    hub.on_disk["YuCollection/Lens-Diffusers"] = hub.online["YuCollection/Lens-Diffusers"] = half
    assert resolve_model("lens", revision="abc") == half
    asked = hub.asked[-1]
    assert asked[:2] == ("YuCollection/Lens-Diffusers", "abc") and "*.safetensors" in asked[2]
    assert not any(pattern.endswith((".bin", ".pt", "*")) for pattern in asked[2]), (
        "pickled files are never fetched"
    )


def test_the_next_mirror_is_tried_and_withdrawn_originals_are_not(hub, tmp_path):
    hub.online["Jinstudio/Lens"] = model_folder(tmp_path / "jin")
    assert resolve_model("lens") == tmp_path / "jin"
    assert "microsoft/Lens" not in [hub_id for hub_id, _, kind in hub.asked if kind != "disk"]


def test_without_a_network_the_error_says_what_to_do(hub):
    with pytest.raises(CheckpointError) as caught:
        resolve_model("lens-base")
    message = str(caught.value)
    assert (
        "No source of lens-base could be reached (YuCollection/Lens-Base-Diffusers could not be downloaded"
        in message
    )
    assert (
        "hf download YuCollection/Lens-Base-Diffusers" in message
        and "lens-nano, which needs no download" in message
    )


def test_offline_asks_no_network(hub):
    with pytest.raises(CheckpointError, match=r"downloads are off.*hf download someone/their-lens"):
        resolve_model("someone/their-lens", offline=True)
    with pytest.raises(CheckpointError, match=r"downloads are off"):
        resolve_model("lens", offline=True)
    assert all(kind == "disk" for _, _, kind in hub.asked)


def test_the_catalog_loads_without_torch():
    modules = "registry reader diffusers_folder detect convert"
    code = "; ".join(f"import lens.models.checkpoints.{name}" for name in modules.split())
    code += "; import lens.models.shapes, lens.models.memory, lens.models.quantized.torchao"
    code += "; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
