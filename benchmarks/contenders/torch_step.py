"""A training step of PyTorch: eager, compiled, or with CUDA graphs."""

from __future__ import annotations

from typing import Any

from gpunn.benchmarks.networks import LR, MOMENTUM, Network
from gpunn.benchmarks.timing import Work


def torch_model(network: Network, place: Any = "cpu") -> Any:
    """Build the network from PyTorch's layers."""
    import torch

    layers: list[Any] = []
    for d, h in network.hidden:
        activation = {"relu": torch.nn.ReLU, "sigmoid": torch.nn.Sigmoid}[network.activation]
        layers += [torch.nn.Linear(d, h), activation()]
        layers += [torch.nn.Dropout(network.rate)] if network.rate else []
    return torch.nn.Sequential(*layers, torch.nn.Linear(*network.layers[-1])).to(place)


def torch_step(
    network: Network,
    rule: str,
    device: str = "cpu",
    dtype: str = "float32",
    mode: str = "",
    fused: bool | None = None,
    keeps_grads: bool = False,
) -> Work:
    """Build PyTorch's step.

    Args:
        network: the network.
        rule: "sgd" or "adam".
        device: the name of the device in PyTorch.
        dtype: "float32", or "bfloat16" for autocast.
        mode: a mode of torch.compile; empty for an eager step.
        fused: the argument `fused` of the optimizers; None for their default.
        keeps_grads: whether to zero the buffers of the gradients instead of freeing them.
    """
    import torch

    place = torch.device(device)
    model = torch_model(network, place)
    if rule == "adam":
        on_gpu = place.type == "cuda"
        optimizer: Any = torch.optim.Adam(
            model.parameters(), lr=LR, fused=on_gpu or fused, capturable=on_gpu
        )
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, fused=fused)
    x, y = (torch.from_numpy(a).to(place) for a in network.examples())
    functional = torch.nn.functional
    criterion: Any = functional.cross_entropy if network.classifies else functional.mse_loss

    def forward_backward() -> Any:
        with torch.autocast(place.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = criterion(model(x), y)
        loss.backward()
        return loss

    work = torch.compile(forward_backward, mode=mode) if mode else forward_backward
    update = torch.compile(optimizer.step, mode=mode) if mode else optimizer.step

    def step() -> None:
        if mode:
            torch.compiler.cudagraph_mark_step_begin()
        work()
        update()
        optimizer.zero_grad(set_to_none=not (mode or keeps_grads))

    return step


def torch_graph_step(network: Network, rule: str, device: str, dtype: str = "float32") -> Work:
    """Capture PyTorch's eager step by hand as one CUDA graph, as its documentation shows."""
    import torch

    step = torch_step(network, rule, device, dtype, keeps_grads=True)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return lambda kept=step: graph.replay()  # a graph does not keep the step's arrays alive
