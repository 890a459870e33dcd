"""The Hydra plugins of lossfit: sweepers and a launcher. Hydra imports all of them at every start, so no torch here."""
