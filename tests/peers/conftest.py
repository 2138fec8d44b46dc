"""Marks of diffusers' test mixins."""

MARKS = (
    "attention", "autoround", "bitsandbytes", "cache", "compile", "context_parallel", "cpu_offload", "gguf",
    "group_offload", "ip_adapter", "lora", "memory", "modelopt", "nightly", "nunchaku_lite", "quantization",
    "quanto", "sdnq", "single_file", "tensor_parallel", "torchao", "training",
)  # fmt: skip


def pytest_configure(config):
    for mark in MARKS:
        config.addinivalue_line("markers", f"{mark}: a mark of diffusers' own tests")
