"""A user's own SavedModel -> frozen_graph.pb, nodes.json and network.h5, checked against the data set."""

from dpuflow.base.errors import UserError
from dpuflow.base.files import write_bytes
from dpuflow.base.writing import scratch_folder
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.datasets.locate import expand
from dpuflow.tfgraph.saved_model import freeze_saved_model
from dpuflow.tfgraph.take_over import take_over
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    params = snakemake.params
    source, names = params.source, params.names
    graph, first, ends, notes = freeze_saved_model(expand(source), names["signature"], names["output_node"])
    outputs = {key: snakemake.output[key] for key in ("graph", "nodes", "network")}
    with scratch_folder(outputs["graph"]) as folder:
        frozen = folder / "signature.pb"
        write_bytes(frozen, graph)
        try:
            wanted = {"input": first, "output": ends if len(ends) > 1 else next(iter(ends.values()))}
            notes += take_over(frozen, wanted, dataset, params.model, outputs, params.get("answer"))
        except UserError as error:
            raise UserError(str(error).replace(str(frozen), str(source))) from None
    for note in notes:
        log.info("%s: %s", source, note)


run(main, globals())
