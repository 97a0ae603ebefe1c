"""From rows to tables: reads results only, never imports torch."""
