"""Everything that touches the outside: policies, the controller that drives them, the guard, wrap()."""
