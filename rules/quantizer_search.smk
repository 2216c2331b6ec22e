# network.h5 -> which settings of the reference quantizer suit it best, by validation images

from dpuflow.quantizer_search.requests import search_networks, search_settings

SEARCHED_SETTINGS = search_settings(config)


rule search_quantizer:
    message:
        "Compare {params.compared} settings of the quantizer on {wildcards.model} by validation images."
    input:
        dataset=made.DATASET,
        network=made.NETWORK,
    output:
        table=made.SEARCH_TABLE,
        page=report(
            made.SEARCH_PAGE,
            caption="../report/quantizer_search.rst",
            category="Quantizer search",
            labels={"data set": "{dataset}", "model": "{model}"},
        ),
    log:
        made.log(made.TRAINED, "quantizer_search"),
    benchmark:
        made.times(made.TRAINED, "quantizer_search")
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
            pattern.format(dataset=dataset, model=model)
            for dataset, model in search_networks(config)
            for pattern in (made.SEARCH_TABLE, made.SEARCH_PAGE)
        ],
