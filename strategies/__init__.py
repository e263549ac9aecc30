"""Search strategies, one file each; found by entry point like anybody else's."""
