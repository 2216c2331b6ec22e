"""The programs that run inside the vendor's containers: copied to the results, which every container sees."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "foreign/vitis_ai"
NAMES = ("quantize_keras.py", "predict_frozen.py", "predict_keras.py")
