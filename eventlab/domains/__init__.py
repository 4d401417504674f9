"""Example businesses, written the way eventlab's users write: one file a domain, the same order in each."""
