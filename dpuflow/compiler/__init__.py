"""The compiler: a quantized network becomes xmodels; checks and figures for a target."""
