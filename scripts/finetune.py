"""Train a model further from another model's H5, aware of quantization if asked -> H5, history.csv."""

from dpuflow.base.files import write_text
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.keras_models.keras_file import load_model, save_model
from dpuflow.keras_models.outputs import require_one_output
from dpuflow.records import write_record
from dpuflow.training.fake_quant import fake_quantized
from dpuflow.training.targets import training_for
from dpuflow.training.trainer import compile_model, history_csv, measured, seed_everything, train
from dpuflow.workflow.scripting import run


def main(snakemake):
    params, start = snakemake.params, snakemake.input.start
    dataset = read_dataset(snakemake.input.dataset)
    seed_everything(params.seed, threads=snakemake.threads)
    model = load_model(start)
    if dataset.task == "classification":
        require_one_output(model, start)
    objective, *parts = training_for(dataset, model, params.get("decode"), f"models.{params.model}")
    trained = model
    if params.qat:
        trained = fake_quantized(model, dataset.images_in("calibration"), params.input_scaling)
    before = measured(trained, parts[1], params.input_scaling, objective)
    history = train(trained, *parts, params.training, params.input_scaling, params.seed, objective)
    gain = {
        "what": "INT8 in the forward pass" if params.qat else "float",
        "split": "validation",
        "images": len(parts[1].labels),
        "before": before,
        "after": measured(trained, parts[1], params.input_scaling, objective),
    }
    if params.qat:
        compile_model(model, params.training, objective)
    save_model(model, snakemake.output.model)
    write_text(snakemake.output.history, history_csv(history))
    write_record(snakemake.output.gain, "finetune.schema.yaml", gain)


run(main, globals())
