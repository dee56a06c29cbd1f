"""
Options and their values: the command line, the environment, the configuration file, and the defaults.

Produces one `Settings` value and knows nothing of what the server does with
it.  Start at `settings` for the table of options, then `sources` for where
each value comes from.
"""
