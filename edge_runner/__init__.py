"""edge-runner: run a trained TensorFlow model on an ARM board's camera."""

__version__ = "0.1.0"
