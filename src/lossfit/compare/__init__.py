"""Many runs side by side. Imports no torch."""
