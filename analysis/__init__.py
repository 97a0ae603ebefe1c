"""From rows to tables, verdicts, figures and a report; reads results only, never imports torch.

The commands are modules (`python -m analysis.table`). From Python, use the functions of
`analysis.notebook`, which have the names of the commands:

    from analysis.notebook import rows, best, table, claims
    frame = rows("rows.csv")            # or rows(grid="quickstart")
    best(frame), claims(frame)          # DataFrames
    table(frame, by=["width"])          # as a notebook displays it
"""
