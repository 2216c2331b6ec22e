"""Random networks as recipes: a list of steps that is data, so that it can be written down and cut smaller.

A recipe is built the same way each time: the parameters of a step are drawn once, its weights come from the
recipe's seed and the step's own number, and a step that does not fit where it stands passes its source on.
So whatever is taken out of a recipe, the rest is still one.
"""

import json
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from dpuflow.network import Layer, Network
from dpuflow.ops import make
from tests.network_fuzz import steps
from tests.network_fuzz.cpu_steps import TAILS

SETTINGS = (
    {},
    {"method": "non_overflow", "equalization": False},
    {"compat": "vai_q"},
    {"batch_norm_after_activation": "depthwise", "equalization": False},
    {"position_search": {"criterion": "output_error"}},
    {"position_search": {"criterion": "logit_error"}, "bias_correction": True},
)
"""Settings of the quantizer that a recipe may ask for; what they leave out is `PLAIN`."""
PLAIN = {"position_search": {"criterion": None}, "fast_finetune": False, "diagnosis": False}
SCALINGS = ((0, 255), (128, 128), (127.5, 127.5), (0, 1))
"""(subtract, divide) of the input."""


@dataclass
class Recipe:
    """How a network is made.

    Attributes
    ----------
    seed : of the weights and the images.
    shape : (H, W, C) of the input.
    steps : {"number", "kind", "from": [numbers of earlier steps, 0 is the input], ...}.
    ends : numbers of the steps that give outputs besides what nobody reads.
    setting, scaling : places in SETTINGS and SCALINGS. on_cpu : whether a target may leave layers to the CPU.
    wide : whether its maps may be so large that a DPU takes them in pieces.
    """

    seed: int
    shape: tuple[int, int, int]
    steps: list[dict] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    setting: int = 0
    scaling: int = 0
    on_cpu: bool = True
    wide: bool = False

    def text(self):
        """As JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def read(cls, text):
        """Of such JSON."""
        entries = json.loads(text)
        return cls(**{**entries, "shape": tuple(entries["shape"])})

    def settings(self):
        """The quantizer's."""
        given = SETTINGS[self.setting]
        return given if "compat" in given else {**PLAIN, **given}

    def input_scaling(self):
        """The input's."""
        return dict(zip(("subtract", "divide"), SCALINGS[self.scaling], strict=True))

    def without(self, number):
        """The recipe without a step: what read it reads the step's first source."""
        gone = next(step for step in self.steps if step["number"] == number)
        source = gone["from"][0]
        rest = [
            {**step, "from": [source if n == number else n for n in step["from"]]}
            for step in self.steps
            if step is not gone
        ]
        return replace(self, steps=rest, ends=[end for end in self.ends if end != number])


def random_recipe(seed, number):
    """The recipe with a number of a seed."""
    rng = np.random.default_rng([seed, number])

    def one_of(*options):
        return options[int(rng.integers(len(options)))]

    shape = (int(rng.integers(1, 15)), int(rng.integers(1, 15)), int(one_of(1, 2, 3, 3, 3, 4, 8, 17, 33)))
    recipe = Recipe(int(rng.integers(2**31)), shape)
    weights = np.array([kind.often for kind in steps.KINDS.values()], float)
    kinds = list(steps.KINDS)
    count = int(rng.integers(1, 10))
    last = 0
    for at in range(1, count + 1):
        kind = str(rng.choice(kinds, p=weights / weights.sum()))
        source = last if rng.random() < 0.75 else int(rng.integers(0, at))
        others = [int(n) for n in rng.integers(0, at, 2)]
        drawn = steps.KINDS[kind].draw(rng)
        recipe.steps.append({"number": at, "kind": kind, "from": [source, *others], **drawn})
        last = at
    if rng.random() < 0.2:  # layers of the CPU behind it
        kinds = list(TAILS)
        for at in range(count + 1, count + 2 + int(rng.integers(0, 4))):
            kind = str(rng.choice(kinds))
            others = [int(n) for n in rng.integers(0, at, 2)]
            drawn = TAILS[kind].draw(rng)
            recipe.steps.append({"number": at, "kind": kind, "from": [at - 1, *others], **drawn})
    if rng.random() < 0.25:
        recipe.ends = sorted({int(n) for n in rng.integers(1, count + 1, 2)})
    recipe.setting = int(rng.integers(len(SETTINGS))) if rng.random() < 0.6 else 0
    recipe.scaling = int(rng.integers(len(SCALINGS)))
    recipe.on_cpu = bool(rng.random() < 0.8)
    if rng.random() < 0.06:
        recipe.wide = True
        recipe.shape = int(rng.integers(15, 90)), int(rng.integers(15, 90)), min(recipe.shape[2], 8)
    return recipe


class Maker:
    """Adds layers to a network; `rng` is the step's own.

    `add` gives the new layer's name; ValueError when the operator cannot stand there.
    """

    def __init__(self, recipe):
        self.recipe, self.layers = recipe, [Layer("x", "input", [], tuple(recipe.shape))]
        self.by_name = {"x": self.layers[0]}
        self.rng = np.random.default_rng(recipe.seed)

    def shape(self, name):
        """Of a layer's output."""
        return self.by_name[name].shape

    def is_float(self, name):
        """Whether a layer computes real numbers on the CPU."""
        return not self.by_name[name].operator.quantized

    def same_shape(self, name):
        """Names of the layers with the shape of a layer."""
        return [layer.name for layer in self.layers if layer.shape == self.shape(name)]

    def add(self, op, sources, attrs=None, weights=None, bias=None):
        """Append a layer."""
        operator = make(op, attrs or {})
        operator.check()
        has = None if weights is None or not operator.weighted else weights.shape
        shape = tuple(int(n) for n in operator.output_shape([self.shape(name) for name in sources], has))
        if min(shape) < 1 or np.prod(shape) > (steps.MOST_OF_WIDE if self.recipe.wide else steps.MOST):
            raise ValueError(f"a map of {shape}")
        return self.append(op, sources, shape, attrs, weights, bias)

    def append(self, op, sources, shape, attrs=None, weights=None, bias=None):
        """Append a layer of a shape that is known."""
        name = f"{op}{len(self.layers)}"
        layer = Layer(name, op, list(sources), tuple(shape), attrs or {}, weights, bias)
        self.layers.append(layer)
        self.by_name[name] = layer
        return name

    def constant(self, value):
        """A value of the CPU."""
        value = np.asarray(value, np.float32)
        return self.append("constant", [], value.shape, None, value)


def build(recipe):
    """The float Network of a recipe."""
    maker = Maker(recipe)
    names = {0: "x"}
    for step in recipe.steps:
        maker.rng = np.random.default_rng([recipe.seed, step["number"]])
        sources = [names.get(number, "x") for number in step["from"]]
        kept = list(maker.layers), dict(maker.by_name)
        try:
            names[step["number"]] = {**steps.KINDS, **TAILS}[step["kind"]].apply(maker, step, sources)
        except ValueError:  # it does not fit there
            maker.layers, maker.by_name = kept
            names[step["number"]] = sources[0]
    if len(maker.layers) == 1:
        steps.KINDS["conv"].apply(maker, steps.SMALLEST_CONV, ["x"])
    return Network("fuzzed", maker.layers, _ends(maker, [names.get(end) for end in recipe.ends]))


def _ends(maker, more):
    """Outputs: what nobody reads, and a few that are read."""
    read = {name for layer in maker.layers for name in layer.inputs}
    ends = [layer.name for layer in maker.layers if layer.name not in read and layer.op != "input"]
    ends += [name for name in more if name not in (None, "x", *ends)]
    return {name: name for name in dict.fromkeys(ends)} if more else {}


def images(network, recipe, count=6):
    """uint8 images for each input: noise, and smooth ones."""
    found = {}
    for at, layer in enumerate(network.inputs):
        rng = np.random.default_rng([recipe.seed, 2**20 + at])
        noise = rng.integers(0, 256, (count, *layer.shape))
        ramps = np.linspace(0, 255, layer.shape[0] * layer.shape[1]).reshape(*layer.shape[:2], 1)
        noise[::2] = np.clip(ramps + rng.normal(0, 20, noise[::2].shape), 0, 255)
        found[layer.name] = noise.astype(np.uint8)
    return found
