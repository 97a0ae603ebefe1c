"""From rows to tables: reads results only, never imports torch.

In a notebook the modules are functions, too (`analysis.notebook` says which arguments they take):

    from analysis import rows, best, table, claims
    frame = rows("rows.csv")            # or rows(grid="quickstart")
    best(frame), claims(frame)          # DataFrames
    table(frame, by=["width"])          # as a notebook shows it
"""
