"""The Hydra plugins of lossfit: sweepers and a launcher. Hydra imports all of this at every start, so no torch here."""
