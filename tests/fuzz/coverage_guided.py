"""Coverage-guided fuzzing of one parser by hand: longer than CI allows, with Atheris (libFuzzer).

    pip install atheris==3.0.0
    python tests/fuzz/coverage_guided.py TARGET [FOLDER] [libFuzzer options, e.g. -max_total_time=300]

TARGET is a key of `fuzz_targets.TARGETS`; FOLDER keeps the corpus (default: a temporary one). Half of
the inputs are libFuzzer's own mutations, half the structure-aware ones of `fuzz_mutations`. An input
that ends in anything but a result or a clear UserError is written to FOLDER/findings and the next
one is tried; each kind of finding (exception and place) is kept once.
"""

import random
import sys
import tempfile
import traceback
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))
from fuzz_targets import TARGETS
from fuzz_worker import attempt, limit_memory, prepare


def main(words):
    name, *options = words
    target = TARGETS[name]
    folder = Path(options.pop(0) if options and not options[0].startswith("-") else tempfile.mkdtemp())
    corpus, findings = folder / "corpus", folder / "findings"
    for place in (corpus, findings):
        place.mkdir(parents=True, exist_ok=True)
    # the targets import what they read with only when they run: all of dpuflow comes instrumented
    with atheris.instrument_imports(include=["dpuflow"], enable_loader_override=False):
        for number, seed in enumerate(target.seeds()):
            (corpus / f"seed{number}").write_bytes(seed)
        prepare(target, folder)
    limit_memory()
    seen, counts = set(), {"refused": 0, "accepted": 0, "finding": 0}

    def one(data):
        outcome, detail, error = attempt(target, data, folder)
        counts[outcome] += 1
        if outcome == "finding":
            place = traceback.extract_tb(error.__traceback__)[-1] if error else None
            own = [f for f in traceback.extract_tb(error.__traceback__) if "dpuflow/" in f.filename]
            key = (
                (type(error).__name__, own[-1].filename, own[-1].lineno)
                if own
                else (type(error).__name__, str(place))
            )
            if key not in seen:
                seen.add(key)
                number = len(seen)
                (findings / f"{number:03d}").write_bytes(data)
                (findings / f"{number:03d}.txt").write_text(detail)
                print(f"FINDING {number}: {key}: {str(error)[:150]}", file=sys.stderr, flush=True)

    def mutate(data, max_size, seed):
        from fuzz_mutations import mutate_randomly

        if seed % 2:
            return atheris.Mutate(data, max_size)
        return mutate_randomly(name, data, random.Random(seed))[:max_size]

    atheris.Setup(
        [sys.argv[0], str(corpus), "-max_len=200000", "-timeout=20", "-rss_limit_mb=0", *options],
        one,
        custom_mutator=mutate,
    )
    try:
        atheris.Fuzz()
    finally:
        print(counts, file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
