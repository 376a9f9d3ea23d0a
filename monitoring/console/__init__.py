"""The console: one live page about a running pipeline, served on this machine only.

server.py        HTTP: the page, its event stream, and the actions of an operator
guard.py         which requests are answered, and which may change something (pure)
follower.py      the thread that reads the log and fills the page
scraper.py       the thread that reads the metrics of the roles
sections.py      the newest content of each section, shared between these threads
page.py          the page as a fold over log records (pure), made of the modules below
tail.py          the newest predictions and labels (pure)
quality.py       losses of the live model and its references over event time (pure)
history.py       releases, runs, online updates and operator actions (pure)
drift_table.py   drift of each feature (pure)
dead_letters.py  dead letters by reason (pure)
status.py        the state of the pipeline and its next run in one sentence (pure)
costs.py         energy and cost from the metrics of the roles (pure)
redaction.py     values that are hidden from every viewer (pure)
static/          the page itself: HTML, JavaScript, CSS
"""
