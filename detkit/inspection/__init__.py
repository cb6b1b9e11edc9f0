"""A view of any model: what its parts cost, what its weights are like, what its feature maps show."""
