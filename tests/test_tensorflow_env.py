"""TensorFlow starts without what it does not need, and leaves it to be imported later."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import gc, json, sys
from dpuflow.base.tensorflow_env import keras, tensorflow

def loaded():
    return [name in sys.modules for name in ("tensorflow", "tf_keras", "pandas")]

tf = tensorflow(threads=1)
found = [loaded()]
K = keras()
found.append(loaded())
import pandas
print(json.dumps([*found, loaded(), gc.isenabled(), tf.keras.Model is K.Model]))
"""


@pytest.mark.slow
def test_tensorflow_is_imported_without_keras_and_pandas(repo):
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=repo, capture_output=True, text=True)
    alone, with_keras, later, collecting, legacy = json.loads(done.stdout)
    assert alone == [True, False, False]
    assert with_keras == [True, True, False]
    assert later == [True, True, True]
    assert collecting and legacy
    assert done.stderr == ""
