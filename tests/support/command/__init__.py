"""For tests of the command line and of whole servers."""
