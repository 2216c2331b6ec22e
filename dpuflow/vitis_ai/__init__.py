"""The vendor's toolchain (Vitis AI): releases, calibration bundle, logs and reports.

What runs inside the vendor's containers is not here but in `dpuflow/foreign/vitis_ai/`.
"""
