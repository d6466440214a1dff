"""Read models and make their inputs; nothing here runs one."""
