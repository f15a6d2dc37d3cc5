"""Fashion-MNIST learned by a hundred sites through every update codec, in one process a run."""
