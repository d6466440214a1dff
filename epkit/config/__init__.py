"""Read what a person wrote, and validate it into a target."""
