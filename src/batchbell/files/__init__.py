"""Batch files: requests on their way in, answers on their way out.

`preflight` checks the lines of a submission and writes them as the parts that a provider takes;
`merge` joins what a provider leaves behind into one file with a line for every request;
`tables` makes a table of that, with the columns of `rows`; `results_store` keeps both in a folder
or in a bucket; `lines` reads single lines. Whatever the size, memory holds a portion and an index.
Nothing here speaks to a provider or to the database.
"""
