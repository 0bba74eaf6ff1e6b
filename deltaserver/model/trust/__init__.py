"""Is this the molecule of the model, and are these energies and forces to be believed?"""
