"""HTML pages: jinja2 templates and figures. Every page of detkit is made by these."""
