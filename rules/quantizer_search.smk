# frozen_graph.pb -> which settings of the reference quantizer suit it best, by validation images

from dpuflow.quantizer_search.requests import search_networks, search_settings

SEARCHED_SETTINGS = search_settings(config)


rule search_quantizer:
    message:
        "Compare {params.compared} settings of the quantizer on {wildcards.model} by validation images."
    input:
        dataset="results/{dataset}/dataset.h5",
        graph="results/{dataset}/{model}/frozen_graph.pb",
        nodes="results/{dataset}/{model}/tf/nodes.json",
    output:
        table="results/{dataset}/{model}/quantizer_search.csv",
        page=report(
            "results/{dataset}/{model}/quantizer_search.html",
            caption="../report/quantizer_search.rst",
            category="Quantizer search",
            labels={"data set": "{dataset}", "model": "{model}"},
        ),
    log:
        "logs/{dataset}/{model}/quantizer_search.log",
    benchmark:
        "benchmarks/jobs/{dataset}/{model}/quantizer_search.tsv"
    params:
        dataset=lambda w: w.dataset,
        model=lambda w: w.model,
        settings=SEARCHED_SETTINGS,
        compared=len(SEARCHED_SETTINGS),
        input_scaling=lambda w: SETTINGS.input_scaling(w.model),
    threads: 2
    resources:
        mem_mb=growing(4000),
        runtime=120,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/quantizer_search.py"


rule quantizer_search:
    message:
        "The settings are ranked in quantizer_search.html of each model."
    input:
        [
            f"results/{dataset}/{model}/quantizer_search.{kind}"
            for dataset, model in search_networks(config)
            for kind in ("csv", "html")
        ],
