"""Raw data: reading, layouts, preparation, splitting, and the audit of what is really trained on."""
