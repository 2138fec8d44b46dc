"""Whether an image of the nano world shows what its prompt asks for."""
