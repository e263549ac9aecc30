"""The space files that come with noahnas."""
