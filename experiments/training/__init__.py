"""Training of the reference policy, the world model and the value."""
