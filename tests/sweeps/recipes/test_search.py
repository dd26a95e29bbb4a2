import subprocess
import sys

from ray import tune

from sweeps import grid_search


def test_it_is_ray_tunes() -> None:
    assert grid_search([1, 2]) == tune.grid_search([1, 2])


def test_a_plan_does_not_import_what_it_does_not_need() -> None:
    """Each of these takes a third of a second or more."""
    program = (
        "import sys; from sweeps import cli; cli.main(['plan', 'demo']); "
        "print(sorted({'ray', 'torch', 'mlflow', 'transformers', 'matplotlib', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
