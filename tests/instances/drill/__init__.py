"""A drill with faults: a seed decides what people say and what breaks, and all clients must see the same."""
