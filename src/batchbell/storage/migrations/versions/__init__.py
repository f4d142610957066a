"""One file for each revision, in order; one that was released is never changed."""
