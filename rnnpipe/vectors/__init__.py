"""Word vectors: training by word2vec, files, neighbours and analogies."""
