"""Policies over a socket: servers that stand in front of a robot's client, and clients of others' servers."""
