"""Plotly figures as typed JSON, for the HTML report and for `tuner.plot`."""
