"""Train a model further from another model's H5, aware of quantization if asked -> H5, history.csv."""

from dpuflow.base.files import write_text
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.keras_models.keras_file import load_model, save_model
from dpuflow.keras_models.outputs import require_one_output
from dpuflow.records import write_record
from dpuflow.training.fake_quant import fake_quantized
from dpuflow.training.trainer import compile_model, history_csv, loss_and_accuracy, seed_everything, train
from dpuflow.workflow.scripting import run


def main(snakemake):
    params = snakemake.params
    dataset = read_dataset(snakemake.input.dataset)
    seed_everything(params.seed, threads=snakemake.threads)
    model = load_model(snakemake.input.start)
    require_one_output(model, snakemake.input.start)
    trained = model
    if params.qat:
        trained = fake_quantized(model, dataset.images_in("calibration"), params.input_scaling)
    validation = dataset.part("validation")
    before = loss_and_accuracy(trained, validation, params.input_scaling)
    history = train(
        trained,
        dataset.part("train"),
        validation,
        params.training,
        params.input_scaling,
        params.seed,
    )
    gain = {
        "what": "INT8 in the forward pass" if params.qat else "float",
        "split": "validation",
        "images": len(validation),
        "before": before,
        "after": loss_and_accuracy(trained, validation, params.input_scaling),
    }
    if params.qat:
        compile_model(model, params.training)
    save_model(model, snakemake.output.model)
    write_text(snakemake.output.history, history_csv(history))
    write_record(snakemake.output.gain, "finetune.schema.yaml", gain)


run(main, globals())
