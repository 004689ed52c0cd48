"""What `rnnpipe bench` measures: this program against its peers, in the same run, on the same machine."""
