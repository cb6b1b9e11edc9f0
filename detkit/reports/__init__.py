"""HTML pages for people: templates, style and figures."""
