"""Who may do what: policy documents, their evaluation, and the one gate that every request passes."""
