"""``python -m harness ...`` is `atoken-bench`; torchrun needs a module: ``torchrun ... -m harness run ...``."""

from harness.cli import main

if __name__ == "__main__":
    main()
