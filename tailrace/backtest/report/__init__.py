"""The report of a backtest, as an HTML page and on a terminal."""
