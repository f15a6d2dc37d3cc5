"""Other systems' own names on fedpost's layers, one package each, for code that was written against them."""
