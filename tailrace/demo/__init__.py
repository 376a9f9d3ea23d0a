"""Demo: twelve weeks of departures from New York, replayed through a complete pipeline in about a minute.

Data: nycflights13 (CC0), from the US Bureau of Transportation Statistics and the FAA; `flights.csv.gz` in this
directory.
"""
