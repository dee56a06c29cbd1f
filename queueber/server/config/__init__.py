"""
Options and their values: the command line, the environment, the configuration file, and the defaults.

Produces one `Settings` value; opens and starts nothing.  Start at `settings`, whose
fields are the table of options, then `sources` for the origin of each value.
"""
