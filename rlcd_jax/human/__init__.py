"""Human evaluation: blind sheets for annotators, and what their answers say.

`study` chooses and arranges what each annotator sees, `sheets` writes it, `reading`
checks and un-blinds the answers, `agreement` measures how far annotators agree with
each other and with themselves, and `results` makes the tables.
"""
