"""Other frameworks, one module each; a module is loaded only by who names it, and needs that framework installed."""
