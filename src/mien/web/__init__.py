"""The live page: what set-up fetches and converts, the server, and the page itself in `page/`."""
