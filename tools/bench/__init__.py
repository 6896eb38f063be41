"""The benchmark: this project beside other servers."""
