"""The console: one live page about a running pipeline, served on this machine.

    guard.py      who may look, and who may change (pure)
    board.py      what the page shows now, section by section, between the threads that know and those that serve
    server.py     the page, its stream, its actions, over HTTP
    follower.py   reads the log, and fills the board; scraper.py asks the roles for their metrics
    view.py       the fold over the log's records (pure), made of tail.py, quality.py, history.py, letters.py
    masking.py    what nobody is shown (pure)
    costs.py      energy and cost, from the roles' metrics (pure)
    verdict.py    how the pipeline is, in one sentence (pure)
    static/       the page

Nothing here knows how to train or to publish: what it needs of that is lent by `tailrace.app.console`.
"""
