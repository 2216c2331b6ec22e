"""Detectors as PyTorch exports them, with their own decoding: cut at their raw heads they give the same
boxes."""

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.decoding.decode import decode
from dpuflow.onnx_graph.heads import cut_at_heads, cut_at_scores, main, raw_heads
from dpuflow.onnx_graph.outputs import OnnxStage

torch = pytest.importorskip("torch")

SIZE, CLASSES, BINS, STRIDES = (64, 96), 3, 16, (8, 16)
ANCHORS = [[[10, 14], [23, 27]], [[37, 58], [61, 42]]]
SCALING = {"subtract": 128, "divide": 64}
DECODE = {"classes": CLASSES, "score_threshold": 0.3, "iou_threshold": 0.45}


def grid(height, width):
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y], -1).float()


class Trunk(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 12, 8, 8)
        self.second = torch.nn.Conv2d(12, 12, 3, 2, 1)

    def forward(self, x):
        first = torch.relu(self.first(x))
        return [first, torch.relu(self.second(first))]


class Anchored(Trunk):
    """The end of a YOLOv5: views, sigmoids and grids behind a 1x1 convolution for each scale."""

    def __init__(self):
        super().__init__()
        self.heads = torch.nn.ModuleList(torch.nn.Conv2d(12, 2 * (5 + CLASSES), 1) for _ in STRIDES)

    def forward(self, x):
        found = []
        for maps, head, anchors, stride in zip(super().forward(x), self.heads, ANCHORS, STRIDES, strict=True):
            height, width = SIZE[0] // stride, SIZE[1] // stride
            y = head(maps).view(1, 2, 5 + CLASSES, height, width).permute(0, 1, 3, 4, 2).sigmoid()
            xy = (y[..., :2] * 2 - 0.5 + grid(height, width)) * stride
            wh = (y[..., 2:4] * 2) ** 2 * torch.tensor(anchors).float().view(1, 2, 1, 1, 2)
            found.append(torch.cat([xy, wh, y[..., 4:]], -1).view(1, -1, 5 + CLASSES))
        return torch.cat(found, 1)


class BySides(Trunk):
    """The end of a YOLOv8: sides and classes from convolutions of their own, distributions, then boxes."""

    def __init__(self):
        super().__init__()
        self.sides = torch.nn.ModuleList(torch.nn.Conv2d(12, 4 * BINS, 1) for _ in STRIDES)
        self.kinds = torch.nn.ModuleList(torch.nn.Conv2d(12, CLASSES, 1) for _ in STRIDES)

    def means(self, shares):
        return (shares * torch.arange(BINS).float().view(1, BINS, 1, 1)).sum(1)

    def forward(self, x):
        both = [
            torch.cat([sides(maps), kinds(maps)], 1).view(1, 4 * BINS + CLASSES, -1)
            for maps, sides, kinds in zip(super().forward(x), self.sides, self.kinds, strict=True)
        ]
        sides, kinds = torch.cat(both, 2).split((4 * BINS, CLASSES), 1)
        shares = sides.view(1, 4, BINS, -1).transpose(2, 1).softmax(1)
        mean = self.means(shares)
        places = [grid(SIZE[0] // s, SIZE[1] // s).view(-1, 2) + 0.5 for s in STRIDES]
        steps = torch.cat([torch.full((len(p), 1), float(s)) for p, s in zip(places, STRIDES, strict=True)]).T
        middle = torch.cat(places).T
        first, last = middle - mean[:, :2], middle + mean[:, 2:]
        return torch.cat([torch.cat([(first + last) / 2, last - first], 1) * steps, kinds.sigmoid()], 1)


class ByConvolution(BySides):
    """The means as ultralytics writes them: a convolution with the bins as its weights, which is no head."""

    def __init__(self):
        super().__init__()
        self.dfl = torch.nn.Conv2d(BINS, 1, 1, bias=False)

    def means(self, shares):
        # `exported` multiplies every parameter
        self.dfl.weight.data = torch.arange(BINS).float().view(1, BINS, 1, 1)
        return self.dfl(shares).view(1, 4, -1)


def exported(path, module):
    torch.manual_seed(3)
    module = module()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2.5)
    torch.onnx.export(module.eval(), (torch.zeros(1, 3, *SIZE),), str(path), dynamo=False, opset_version=17)
    return path


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(5).integers(0, 256, (2, *SIZE, 3)).astype(np.uint8)


def whole(path, images):
    """What the file itself answers."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = ((images.astype(np.float32) - 128) / 64).transpose(0, 3, 1, 2)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: picture[None]})[0] for picture in x])


@pytest.mark.parametrize(
    ("module", "channels", "told", "own"),
    [
        (Anchored, [16, 16], {"kind": "yolov5", "anchors": ANCHORS}, {"kind": "none", "objectness": True}),
        (BySides, [64, 3, 64, 3], {"kind": "yolov8"}, {"kind": "none"}),
        (ByConvolution, [64, 3, 64, 3], {"kind": "yolov8"}, {"kind": "none"}),
    ],
)
def test_cut_at_its_heads_an_export_gives_its_own_boxes(
    tmp_path, images, capsys, module, channels, told, own
):
    path = exported(tmp_path / "net.onnx", module)
    heads = raw_heads(path)
    sides = [[8, 12]] * (len(channels) // 2) + [[4, 6]] * (len(channels) // 2)
    assert list(heads.values()) == [[c, *s] for c, s in zip(channels, sides, strict=True)]
    assert cut_at_heads(path) == list(heads)
    assert main([str(path)]) == 0
    line = f'  - "{next(iter(heads))}"    # channels x height x width: {channels[0]} x 8 x 12'
    assert line in capsys.readouterr().out
    stage = OnnxStage(path, (*SIZE, 3), SCALING, output_name=list(heads))
    assert sorted(stage.shapes.values()) == sorted((*s, c) for c, s in zip(channels, sides, strict=True))
    found = decode(told | DECODE, stage(images), SIZE)
    expected = decode(own | DECODE, {"output": whole(path, images)}, SIZE)
    for (boxes, scores, classes), (own_boxes, own_scores, own_classes) in zip(found, expected, strict=True):
        assert len(boxes) == len(own_boxes) > 3
        np.testing.assert_allclose(scores, own_scores, rtol=1e-4)
        assert classes.tolist() == own_classes.tolist() and len(set(classes.tolist())) > 1
        np.testing.assert_allclose(boxes, own_boxes, atol=1e-2)


def test_a_file_without_convolutions_has_no_heads(tmp_path):
    from onnx import TensorProto, helper, save

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    save(helper.make_model(graph), str(tmp_path / "m.onnx"))
    with pytest.raises(UserError, match=r"m\.onnx: no convolution leads to its outputs"):
        raw_heads(tmp_path / "m.onnx")
    assert main([str(tmp_path / "m.onnx")]) == 2 and main([]) == 2


def test_heads_that_are_the_files_outputs_have_their_shapes(tmp_path):
    """Without the exporter's decoding: the largest comes first, whatever the file's order."""
    from onnx import TensorProto, helper, numpy_helper, save

    def entry(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *shape])

    weights = [numpy_helper.from_array(np.ones((4, 3, k, k), np.float32), f"w{k}") for k in (1, 2)]
    nodes = [helper.make_node("Conv", ["x", f"w{k}"], [f"head{k}"], strides=[k, k]) for k in (2, 1)]
    ends = [entry("head2", 4, 4, 6), entry("head1", 4, 8, 12)]
    graph = helper.make_graph(nodes, "g", [entry("x", 3, 8, 12)], ends, weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(tmp_path / "m.onnx"))
    assert cut_at_heads(tmp_path / "m.onnx") is None  # maps already
    assert list(raw_heads(tmp_path / "m.onnx").items()) == [("head1", [4, 8, 12]), ("head2", [4, 4, 6])]


@pytest.mark.parametrize("behind", [[], ["Squeeze", "Cast"]])
@pytest.mark.parametrize("last", [0, 1])
def test_a_segmentation_that_ends_in_an_argmax_is_cut_in_front_of_it(tmp_path, behind, last):
    """With or without what changes its form only, and where its scores are an output as well."""
    from onnx import TensorProto, helper, numpy_helper, save

    weights = [numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1, select_last_index=last),
    ]
    for kind in behind:
        given = {"to": TensorProto.INT64} if kind == "Cast" else {}
        nodes.append(helper.make_node(kind, [nodes[-1].output[0]], [kind], **given))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 12])
    ends = [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.INT64, None)]
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 4, 8, 12])
    for outputs, alone in ((ends, None), ([scores, *ends], None), ([scores], True)):
        graph = helper.make_graph(nodes, "g", [x], outputs, weights)
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(tmp_path / "m.onnx"))
        assert cut_at_scores(tmp_path / "m.onnx") == (None if alone or last else ["scores"])
