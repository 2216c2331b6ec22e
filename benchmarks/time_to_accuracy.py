"""Seconds of training until `signnet` reaches an accuracy on the test images.

    python benchmarks/time_to_accuracy.py [--seeds 1 2] [--epochs N] [--learning-rate R] [--quick]

Trains with the settings of config/config.yaml (or those given) on the real Sign Language MNIST
where its results are, and measures every test image after each epoch. The clock counts the
training steps, the first call's building of the graph included; not the measuring. The test
images choose nothing: the epoch that is kept is the one that is best on validation.
"""

import sys
import time

import subject
import yaml
from measuring import REPO, Goals, parser_of, progress, table

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.training.model_builder import build_model
from dpuflow.training.objectives import Classification
from dpuflow.training.trainer import Loop, compile_model, measured, seed_everything

NETWORK = "signnet"
LEVELS = (0.99, 0.995)


def train(parts, classes, entry, seed):
    """[(seconds so far, validation score, test accuracy)] after each epoch.

    parts : {"train", "validation", "test"} -> (images uint8, labels).
    """
    seed_everything(seed, threads=2)
    model = build_model(entry["layers"], parts["train"][0].shape[1:], classes, NETWORK)
    compile_model(model, entry["training"])
    loop = Loop(model, parts["train"], entry["training"], entry["input"], seed)
    seconds, rows = 0.0, []
    for epoch in range(entry["training"]["epochs"]):
        start = time.perf_counter()
        loop.run_epoch(epoch)
        seconds += time.perf_counter() - start
        scores = {
            name: measured(model, parts[name], entry["input"], Classification())
            for name in ("validation", "test")
        }
        order = (scores["validation"]["accuracy"], -scores["validation"]["loss"])
        rows.append((seconds, order, scores["test"]["accuracy"]))
        progress(f"seed {seed}, epoch {epoch + 1}: {seconds:.1f} s, test {100 * rows[-1][2]:.2f} %")
    return rows


def main():
    """Parse the command line, measure, print Markdown; returns the exit status."""
    parser = parser_of(__doc__, repeats=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--quick", action="store_true", help="random images: only shows that it works")
    options = parser.parse_args()
    entry = yaml.safe_load((REPO / "config" / "config.yaml").read_text())["models"][NETWORK]
    given = {"epochs": options.epochs, "learning_rate": options.learning_rate}
    entry["training"] |= {key: value for key, value in given.items() if value}
    if options.quick:
        entry["training"]["epochs"] = 1
        parts, classes = {name: subject.random_images(256) for name in ("train", "validation", "test")}, 25
        title = "random images"
    else:
        chosen = subject.find()
        data = read_dataset(chosen.dataset_h5)
        parts, classes = (
            {name: data.subset(name) for name in ("train", "validation", "test")},
            len(data.class_names),
        )
        title = subject.CONFIGS[chosen.dataset][2]
    goals, table_rows = Goals(binding=not options.quick), []
    for seed in options.seeds:
        rows = train(parts, classes, entry, seed)
        reached = {}
        for level in LEVELS:
            found = next(
                ((i + 1, seconds) for i, (seconds, _, test) in enumerate(rows) if test >= level), None
            )
            reached[level] = f"{found[1]:.1f} (epoch {found[0]})" if found else "never"
        kept = max(rows, key=lambda row: row[1])[2]
        table_rows.append([seed, *reached.values(), f"{rows[-1][0]:.1f}", f"{100 * kept:.2f}"])
        goals.add(f"seed {seed}: {100 * kept:.2f} % in the end, at least 99.8 %", kept >= 0.998)
    print("## Time to an accuracy\n")
    headers = ("seed", *(f"{level} after s" for level in LEVELS), "all epochs, s", "kept epoch, %")
    print(table(headers, table_rows))
    print(f"`{NETWORK}` on {title}; accuracy on all test images; seconds of training steps alone.\n")
    return goals.finish()


if __name__ == "__main__":
    sys.exit(main())
