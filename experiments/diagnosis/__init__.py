"""What limits a policy with search: proposals, encoder, model, value or budget."""
