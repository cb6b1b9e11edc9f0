"""A page of HTML: a template of detkit/reports/templates filled with values.

A page is one file without script that loads nothing from elsewhere, which its Content-Security-Policy
also tells the browser. Every value is escaped, because names in a data set can be hostile.
"""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from detkit.errors import StorageError


def render(template: str, **values: object) -> Markup:
    """The text of a template with its values put in.

    Args:
        template: file name in detkit/reports/templates. A whole page extends ``base.html``.
        values: what the template names. Text is escaped; a figure, which is ``Markup``, is not.

    Raises:
        jinja2.UndefinedError: if the template uses a name that is not among the values.
    """
    return Markup(_ENVIRONMENT.get_template(template).render(values))


def write_page(path: str | Path, template: str, **values: object) -> None:
    """Write a page to a file, which is replaced if it exists.

    Args:
        path: of the file.
        template: see ``render``.
        values: see ``render``.

    Raises:
        StorageError: if the file cannot be written.
    """
    page = render(template, **values)
    try:
        Path(path).write_text(page, encoding="utf-8", errors="replace")  # file names need not be valid Unicode
    except OSError as error:
        raise StorageError(f"{path}: the report cannot be written: {error.strerror}") from error


def _user_text(text: object) -> Markup:
    """A text from outside detkit: escaped, and its direction of writing does not affect the text beside it."""
    return Markup("<bdi>{}</bdi>").format(text)


def _thousands(number: int) -> str:
    return f"{number:,}"


_ENVIRONMENT = Environment(
    loader=PackageLoader("detkit.reports"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters |= {"user": _user_text, "thousands": _thousands}
