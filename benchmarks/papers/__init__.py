"""Published results on MNIST, reproduced by one command, with seeds and intervals."""
