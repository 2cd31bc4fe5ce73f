"""Expands paths as users write them."""

from pathlib import Path


def user_path(path: str | Path, what: str) -> Path:
    """Returns a path with `~` expanded. Raises ValueError, naming the setting `what`, where that fails."""
    text = str(path)
    if not text or "\0" in text:
        raise ValueError(f"{what} is {text!r}, which is not a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        whose = text[1:].partition("/")[0]
        problem = f"no user {whose}" if whose else "no home folder (set HOME)"
        raise ValueError(f"{what} is {text!r}, but there is {problem}: write the path in full") from None


def replace_text(path: Path, text: str) -> None:
    """Writes a file as a whole: who reads it finds the text before or this one, also where the process is killed."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
