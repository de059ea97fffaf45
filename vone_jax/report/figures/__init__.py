"""Figures as inline SVG (line plots) and PNG data URIs (images)."""
