# All results -> one report


def run_results(run):
    """The files that the report reads of one run, by stage."""
    model = f"results/{run.dataset}/{run.model}"
    quantized = f"{model}/{run.quantizer}"
    compiled = f"{quantized}/{run.target}"
    return {
        "dataset": f"results/{run.dataset}/dataset.h5",
        "history": f"{model}/history.csv",
        "keras": f"{model}/keras_accuracy.json",
        "freeze": f"{model}/freeze.json",
        "frozen": f"{model}/frozen_accuracy.json",
        "quantization": f"{quantized}/quantization.json",
        "quantized": f"{quantized}/quantized_accuracy.json",
        "compile": f"{compiled}/compile.json",
        "board": f"{compiled}/{run.runner}/board_accuracy.json",
    }
