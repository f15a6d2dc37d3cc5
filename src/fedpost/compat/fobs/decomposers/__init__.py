"""FOBS' own decomposers, where programs import them or inherit from them; nothing here needs them."""
