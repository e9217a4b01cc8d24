"""Subject: the same supernet in plain PyTorch, as a NAS researcher writes it.

NAS-Bench-201 with weight sharing: the teacher is the mixture of all operations
weighted by softmax(beta), five FairNAS subnets are dispatched in Python. One
step is Algorithm 1 of the paper, eager or under torch.compile, without a
hypernetwork; within that, whatever makes plain PyTorch fast: one ReLU and one pool per
node, ``none`` costs nothing, a fused optimizer, no synchronisation, gradients set to
None, one backward per subnet.

Shapes: ``B`` batch, ``C`` channels, ``D`` decisions, ``K`` candidates.
"""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NUM_NODES = 4
NUM_STAGES = 3
IMAGE_CHANNELS = 3


class SubnetBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm in training whose running statistics are the teacher's."""

    def forward(self, x: torch.Tensor, track: bool) -> torch.Tensor:
        """Normalise by the batch; write running statistics if ``track``."""
        mean, variance = None, None
        if track:
            mean, variance = self.running_mean, self.running_var
        return F.batch_norm(
            x, mean, variance, self.weight, self.bias, True, self.momentum, self.eps
        )


class ConvBN(nn.Module):
    """Convolution without bias and BatchNorm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        padding = kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = SubnetBatchNorm2d(outputs)

    def forward(self, x: torch.Tensor, track: bool) -> torch.Tensor:
        """Return BN(conv(x))."""
        return self.bn(self.conv(x), track)


class Node:
    """An activation whose ReLU and pool are computed once, if at all."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x

    @functools.cached_property
    def rectified(self) -> torch.Tensor:
        """ReLU."""
        return F.relu(self.x)

    @functools.cached_property
    def pooled(self) -> torch.Tensor:
        """Average pool 3x3; padding is not counted."""
        return F.avg_pool2d(self.x, 3, 1, 1, count_include_pad=False)


class Cell(nn.Module):
    """A searchable cell: a DAG of four nodes and six edges."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(
            nn.ModuleDict(
                {
                    "nor_conv_1x1": ConvBN(channels, channels, 1),
                    "nor_conv_3x3": ConvBN(channels, channels, 3),
                }
            )
            for _ in EDGES
        )

    def forward(self, x: torch.Tensor, paths: list, track: bool) -> torch.Tensor:
        """Run the cell.

        Args:
            x: [B, C, H, W].
            paths: For each edge a list of (operation, weight), the weight a
                scalar tensor, or None for one.
            track: Whether BatchNorm writes running statistics.
        """
        nodes = [Node(x)]
        for node in range(1, NUM_NODES):
            total = None
            for edge, (source, target) in enumerate(EDGES):
                if target != node:
                    continue
                for operation, weight in paths[edge]:
                    y = self._operate(edge, operation, nodes[source], track)
                    total = _accumulate(total, y, weight)
            nodes.append(Node(torch.zeros_like(x) if total is None else total))
        return nodes[-1].x

    def _operate(
        self, edge: int, operation: str, node: Node, track: bool
    ) -> torch.Tensor:
        if operation == "skip_connect":
            return node.x
        if operation == "avg_pool_3x3":
            return node.pooled
        return self.edges[edge][operation](node.rectified, track)


def _accumulate(
    total: torch.Tensor | None, y: torch.Tensor, weight: torch.Tensor | None
) -> torch.Tensor:
    if weight is None:
        return y if total is None else total + y
    weight = weight.to(y.dtype)
    return weight * y if total is None else torch.addcmul(total, weight, y)


class Reduction(nn.Module):
    """Residual block of stride 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_a = ConvBN(inputs, outputs, 3, stride=2)
        self.conv_b = ConvBN(outputs, outputs, 3)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor, paths: list, track: bool) -> torch.Tensor:
        """Run the block; ``paths`` does not matter to it."""
        del paths
        y = self.conv_b(F.relu(self.conv_a(F.relu(x), track)), track)
        return y + self.shortcut(F.avg_pool2d(x, 2))


class TorchSupernet(nn.Module):
    """All networks of NAS-Bench-201 with shared weights.

    Args:
        channels: C of the first stage.
        num_cells: Cells per stage.
        num_classes: Classes.
    """

    def __init__(self, channels: int, num_cells: int, num_classes: int = 10) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.zeros(len(EDGES), len(OPERATIONS)))
        self.stem = ConvBN(IMAGE_CHANNELS, channels, 3)
        blocks: list[nn.Module] = []
        width = channels
        for stage in range(NUM_STAGES):
            if stage:
                blocks.append(Reduction(width, 2 * width))
                width *= 2
            blocks += [Cell(width) for _ in range(num_cells)]
        self.blocks = nn.ModuleList(blocks)
        self.head_bn = SubnetBatchNorm2d(width)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: torch.Tensor, arch: list[int] | None = None) -> torch.Tensor:
        """Return the logits in training mode of the teacher or of one subnet."""
        track = arch is None
        paths = self._mixture() if arch is None else self._single(arch)
        x = self.stem(x, track)
        for block in self.blocks:
            x = block(x, paths, track)
        x = F.relu(self.head_bn(x, track))
        return self.classifier(x.mean(dim=(2, 3)))

    def _mixture(self) -> list:
        weights = self.beta.softmax(dim=-1)
        return [
            [
                (operation, weight)
                for operation, weight in zip(OPERATIONS, row.unbind(), strict=True)
                if operation != "none"
            ]
            for row in weights.unbind()
        ]

    def _single(self, arch: list[int]) -> list:
        names = [OPERATIONS[choice] for choice in arch]
        return [[] if name == "none" else [(name, None)] for name in names]


class Trainer:
    """Algorithm 1 with one SGD optimizer, whose momentum both updates share.

    Args:
        model: The supernet.
        learning_rate: Of every update.
        momentum: Nesterov's.
        weight_decay: Coupled, in the teacher's update, on kernels and beta.
        dtype: ``"float32"``, or ``"bfloat16"`` for autocast.
        device: ``"cpu"`` or ``"cuda"``, where the model is.
        compiled: Whether the teacher runs under torch.compile as a whole, and the
            subnets with compiled convolutions and BatchNorms: a subnet as a whole
            would be compiled anew for each architecture.
    """

    def __init__(
        self,
        model: TorchSupernet,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        dtype: str = "float32",
        device: str = "cpu",
        compiled: bool = False,
    ) -> None:
        self.model = model
        self.teacher = model
        if compiled:
            # Of every width, kernel and stride, with and without running statistics.
            torch._dynamo.config.recompile_limit = 64
            self.teacher = torch.compile(model)
            for module in model.modules():
                if isinstance(module, ConvBN):
                    module.compile()
        self.weight_decay = weight_decay
        self.shared = [p for p in model.parameters() if p is not model.beta]
        decayed = [p for p in model.parameters() if p.ndim > 1]
        undecayed = [p for p in model.parameters() if p.ndim == 1]
        self.optimizer = torch.optim.SGD(
            [{"params": decayed}, {"params": undecayed}],
            lr=learning_rate,
            momentum=momentum,
            nesterov=True,
            fused=True,
        )
        self.autocast = functools.partial(
            torch.autocast, device, torch.bfloat16, enabled=dtype == "bfloat16"
        )

    def step(
        self, images: torch.Tensor, labels: torch.Tensor, archs: list[list[int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Train on one batch; returns the teacher's and the subnets' mean loss."""
        teacher_loss, soft_labels = self.update_teacher(images, labels)
        return teacher_loss, self.update_subnets(images, soft_labels, archs)

    def update_teacher(
        self, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Learn true labels; returns the loss and the soft labels [B, classes]."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            logits = self.teacher(images)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        self._update(self.weight_decay)
        return loss.detach(), logits.detach().softmax(dim=-1)

    def update_subnets(
        self, images: torch.Tensor, soft_labels: torch.Tensor, archs: list[list[int]]
    ) -> torch.Tensor:
        """Learn soft labels: one update of the summed losses; returns their mean."""
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=images.device)
        for arch in archs:
            with self.autocast():
                logits = self.model(images, arch)
            loss = F.cross_entropy(logits.float(), soft_labels)
            loss.backward()
            total += loss.detach()
        for parameter in self.shared:
            # An operation on a dead edge: its momentum goes on all the same.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._update(weight_decay=0.0)
        return total / len(archs)

    def _update(self, weight_decay: float) -> None:
        self.optimizer.param_groups[0]["weight_decay"] = weight_decay
        self.optimizer.step()


def fair_set() -> list[list[int]]:
    """Draw K subnets that use each operation of each edge once (FairNAS)."""
    return torch.rand(len(EDGES), len(OPERATIONS)).argsort(dim=1).T.tolist()


def build(
    batch: int,
    channels: int,
    num_cells: int,
    image_size: int,
    dtype: str = "float32",
    channels_last: bool = False,
    device: str = "cpu",
    compiled: bool = False,
):
    """Return ``run(steps)``, which trains and returns the teacher's last loss.

    Args:
        batch: Images per step.
        channels: C of the first stage.
        num_cells: Cells per stage.
        image_size: Height and width in pixels.
        dtype: ``"float32"``, or ``"bfloat16"`` for autocast.
        channels_last: Memory layout of images and weights.
        device: ``"cpu"`` or ``"cuda"``. On CUDA cuDNN tries its algorithms out in
            the first step, and float32 products and convolutions may use TF32, as
            JAX's do by default.
        compiled: As in `Trainer`.
    """
    torch.manual_seed(0)
    if device == "cuda":
        torch.backends.cudnn.benchmark = True
        # Of products only; convolutions use TF32 by default.
        torch.set_float32_matmul_precision("high")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = TorchSupernet(channels, num_cells).to(device, memory_format=layout)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    trainer = Trainer(model, dtype=dtype, device=device, compiled=compiled)
    rng = np.random.default_rng(0)
    shape = (batch, IMAGE_CHANNELS, image_size, image_size)
    images = torch.from_numpy(rng.normal(size=shape).astype("float32"))
    images = images.to(device, memory_format=layout)
    labels = torch.from_numpy(rng.integers(0, 10, batch)).to(device)

    def run(steps: int) -> float:
        for _ in range(steps):
            loss, _ = trainer.step(images, labels, fair_set())
        return float(loss)

    return run
