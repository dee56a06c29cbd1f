"""
Options and their values: the command line, the environment, the configuration file, and the defaults.

`twisted_options` splits the command line into the texts of each option.  `sources`
adds those of the environment and of the file, and converts the text of the first
source that has one by the option's kind (`spec`).  The values of all options make one
`Settings` value, which finds conflicts.  Start at `settings`: its fields are the options.
"""
