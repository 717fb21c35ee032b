"""Self-contained reports: charts as inline SVG, one HTML file, no network."""
