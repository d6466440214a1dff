"""What an author needs to prove a plugin. Imports pytest only when it is asked for what needs it."""
