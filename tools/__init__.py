"""Programs for who works on Batchbell; none of them is installed."""
