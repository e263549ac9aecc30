"""A console that shows text as it is: no markup, no emoji codes, no commands to the terminal."""

from __future__ import annotations

from typing import Any

import rich.console
from rich.text import Text

from noahnas.printable import printable


class Console(rich.console.Console):
    """Rich's console, for text that may hold names which others chose."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string of a table or of `print` as text that can be shown anywhere."""
        return super().render_str(printable(text), **options)
