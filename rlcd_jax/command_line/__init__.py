"""What is typed at a command: which config it names, and what its fields accept.

`config_flag` finds the file of a config and turns each mistake in a command line into
one message; `flag_help` and `field_help` list flags and fields as `--help` shows them;
`job_flags` are those of every command that runs as a job; `quickstart_words` says the
quickstart's flags in the words of a run, `last_words` what a run tells at its end;
`commands` are all commands under one name. All are handed the words, the flags and the
folder of configs; nothing here reads the process's own, or prints.
"""
