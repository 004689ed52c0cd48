"""Tasks whose sequences are computed: counting ones, sums of digits, sine waves, binary addition."""
