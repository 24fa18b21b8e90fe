"""Episodes: collecting them, writing them, reading them."""
