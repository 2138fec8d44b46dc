"""diffusers' mixins for models, on LensTransformer2DModel: `docs/peers.md` has the results."""

from typing import ClassVar

import pytest
import torch
from diffusers_sources import CHECKOUT, NOT_TESTED, mixins
from tiny_models import CAPTURED_LAYERS, DENOISER_CONFIG, TEXT_WIDTH, TOKEN_CHANNELS

from lens import LensTransformer2DModel

if CHECKOUT is None:

    @pytest.mark.skip(reason=NOT_TESTED)
    def test_the_denoiser_passes_the_mixins_of_diffusers():
        raise AssertionError

else:
    utils = mixins("models")

    class DenoiserConfig(utils.BaseModelTesterConfig):
        """What the mixins ask of a model: its class, arguments and inputs."""

        model_class = LensTransformer2DModel
        main_input_name = "hidden_states"
        input_shape = output_shape = (6, TOKEN_CHANNELS)
        model_split_percents = (0.7, 0.6, 0.6)
        uses_custom_attn_processor = True

        def get_init_dict(self):
            return dict(DENOISER_CONFIG)

        def get_dummy_inputs(self, height=2, width=3, batch_size=2):
            draw = torch.Generator().manual_seed(0)
            shape = batch_size, 7, TEXT_WIDTH
            return {
                "hidden_states": torch.randn(batch_size, height * width, TOKEN_CHANNELS, generator=draw),
                "encoder_hidden_states": [torch.randn(shape, generator=draw) for _ in CAPTURED_LAYERS],
                "encoder_hidden_states_mask": torch.ones(shape[:2], dtype=torch.bool),
                "timestep": torch.full((batch_size,), 0.5), "img_shapes": [(1, height, width)],
            }  # fmt: skip

    class TestModel(DenoiserConfig, utils.ModelTesterMixin):
        pass

    class TestAttention(DenoiserConfig, utils.AttentionTesterMixin):
        pass

    class TestTraining(DenoiserConfig, utils.TrainingTesterMixin):
        def test_gradient_checkpointing_is_applied(self):
            super().test_gradient_checkpointing_is_applied(expected_set={"LensTransformer2DModel"})

    class TestMemory(DenoiserConfig, utils.MemoryTesterMixin):
        pass

    class TestCompile(DenoiserConfig, utils.TorchCompileTesterMixin):
        different_shapes_for_compilation = ((4, 4), (4, 8), (8, 8))

    class TestLora(DenoiserConfig, utils.LoraTesterMixin):
        pass

    class TestLoraHotSwapping(DenoiserConfig, utils.LoraHotSwappingForModelTesterMixin):
        different_shapes_for_compilation = ((4, 4), (4, 8), (8, 8))

    class TestContextParallel(DenoiserConfig, utils.ContextParallelTesterMixin):
        pass

    class TestFirstBlockCache(DenoiserConfig, utils.FirstBlockCacheTesterMixin):
        pass

    class TestPyramidAttentionBroadcast(DenoiserConfig, utils.PyramidAttentionBroadcastTesterMixin):
        pass

    class TestFasterCache(DenoiserConfig, utils.FasterCacheTesterMixin):
        # The passes of guidance run one after the other here, so there is no batch of both.
        FASTER_CACHE_CONFIG: ClassVar = {
            **utils.FasterCacheConfigMixin.FASTER_CACHE_CONFIG, "is_guidance_distilled": True,
        }  # fmt: skip

    class TestTaylorSeerCache(DenoiserConfig, utils.TaylorSeerCacheTesterMixin):
        pass

    class TestMagCache(DenoiserConfig, utils.MagCacheTesterMixin):
        pass
