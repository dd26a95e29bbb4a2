"""Training data: the corpus, packed windows, question rows, masks, and the checks that run before training."""
