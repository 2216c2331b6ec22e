# What the rules of vitis_ai.smk and vitis_ai_compile.smk ask of the configuration and of the release matrix.

import json
import shlex

from dpuflow.vitis_ai import programs, releases
from dpuflow.vitis_ai.shell_words import option_words

BUNDLE = f"results/{made.QUANTIZED}/vitis_ai"


def quantizer_image(w):
    entry = config["quantizers"][w.quantizer]
    return releases.image(entry["tool"], entry["release"], config.get("vitis_ai", {}).get("images"))


def compiler_image(w):
    target = SETTINGS.target(w.target)
    release = SETTINGS.hardware(w.target).release
    return releases.image(target["compiler"], release, config.get("vitis_ai", {}).get("images"))


def container_arch(w):
    """Path of the container's own arch.json for a target, or None where ours is to be used."""
    target = SETTINGS.hardware(w.target)
    return releases.arch_path(target, target.release)


def written_arch(w):
    """Our arch.json, as an input of the rules that need it."""
    path = made.ARCH
    return [] if container_arch(w) else path.format(**w)


def compiler_options(w):
    return config["targets"][w.target].get("compiler_options", {})


def compiler_option_words(w):
    """--options of the vendor's compiler with its quoted value, or nothing."""
    options = compiler_options(w)
    return f"--options {shlex.quote(json.dumps(options, sort_keys=True))}" if options else ""


def tool_of(w):
    return config["quantizers"][w.quantizer]["tool"]


def quantized_by_vendor(w):
    """What the vendor's quantizer wrote."""
    name = "quantize_eval_model.pb" if tool_of(w) == "vai_q_tensorflow" else "quantized_model.h5"
    return made.of(f"results/{made.QUANTIZED}/{name}", w)


VENDOR_QUANTIZERS = SETTINGS.named("quantizers", "tool", *releases.tools("vai_q"))
VENDOR_COMPILERS = SETTINGS.named("targets", "compiler", *releases.tools("vai_c"))
