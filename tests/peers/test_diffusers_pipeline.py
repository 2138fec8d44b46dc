"""diffusers' mixins for pipelines, on LensPipeline: `docs/peers.md` has the results."""

from typing import ClassVar

import diffusers
import pytest
from diffusers_sources import CHECKOUT, NOT_TESTED, mixins
from tiny_models import tiny_components, tiny_denoiser

from lens import LensPipeline

if CHECKOUT is None:

    @pytest.mark.skip(reason=NOT_TESTED)
    def test_the_pipeline_passes_the_mixins_of_diffusers():
        raise AssertionError

else:
    utils = mixins("pipelines")

    class PipelineConfig(utils.BasePipelineTesterConfig):
        """What the mixins ask of a pipeline: its class, components and inputs."""

        pipeline_class = LensPipeline
        required_input_params_in_call_signature = frozenset(
            ["prompt", "negative_prompt", "height", "width", "guidance_scale", "prompt_embeds",
             "negative_prompt_embeds"]
        )  # fmt: skip
        batch_input_params = frozenset(["prompt", "negative_prompt"])
        callback_cfg_params = frozenset(["prompt_embeds", "prompt_mask"])
        output_shape = (3, 32, 48)

        def get_dummy_components(self, num_layers=3, **_):
            # The layers that a pipeline without denoiser reads by default.
            denoiser = tiny_denoiser(num_layers=num_layers, selected_layer_index=(0, 2, 3, 5))
            return tiny_components() | {"transformer": denoiser}

        @pytest.fixture(autouse=True)
        def safetensors(self, monkeypatch):
            """Save weights as safetensors: the mixins pickle them, and Lens refuses to read pickles."""
            save = LensPipeline.save_pretrained

            def save_safely(*args, **settings):
                return save(*args, **(settings | {"safe_serialization": True}))

            monkeypatch.setattr(LensPipeline, "save_pretrained", save_safely)

        def get_dummy_inputs(self):
            return {
                "prompt": "a fox", "negative_prompt": "a dog", "generator": self.get_generator(0),
                "num_inference_steps": 2, "guidance_scale": 4.0, "height": 32, "width": 48,
                "output_type": "pt",
            }  # fmt: skip

    class TestPipeline(PipelineConfig, utils.PipelineTesterMixin):
        def test_encode_prompt_works_in_isolation(self, monkeypatch):
            monkeypatch.setattr(diffusers.pipelines, "LensPipeline", LensPipeline, raising=False)
            super().test_encode_prompt_works_in_isolation()

        @pytest.mark.skip(reason="a pipeline without any optional part cannot draw")
        def test_save_load_optional_components(self):
            raise AssertionError

    class TestMemory(PipelineConfig, utils.MemoryTesterMixin):
        pass

    class TestLora(PipelineConfig, utils.LoraTesterMixin):
        pass

    class TestFirstBlockCache(PipelineConfig, utils.FirstBlockCacheTesterMixin):
        pass

    class TestPyramidAttentionBroadcast(PipelineConfig, utils.PyramidAttentionBroadcastTesterMixin):
        pass

    class TestFasterCache(PipelineConfig, utils.FasterCacheTesterMixin):
        # The passes of guidance run one after the other here, so there is no batch of both.
        FASTER_CACHE_CONFIG: ClassVar = {
            **utils.FasterCacheTesterMixin.FASTER_CACHE_CONFIG, "is_guidance_distilled": True,
        }  # fmt: skip

    class TestTaylorSeerCache(PipelineConfig, utils.TaylorSeerCacheTesterMixin):
        pass

    class TestMagCache(PipelineConfig, utils.MagCacheTesterMixin):
        pass
