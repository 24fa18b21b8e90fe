"""How good it is: labels shaped from offline episodes, and the value learned from them."""
