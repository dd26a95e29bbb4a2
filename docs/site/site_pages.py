"""The pages of the documentation's site: README.md and the files of docs/, with links that work there.

On the site README.md is the front page, notebooks are pages, and a file of the repository that a page links to is a
page with its text, so that no link leaves the site for a place that may not be there.
"""

import json
import posixpath
import re
from pathlib import Path

FRONT = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
"""Pages outside docs/, and what they are called on the site."""
LINK = re.compile(r"(?P<before>\]\()(?P<path>[^\s()#:]+)(?P<after>#[^\s()]*)?(?P<end>\))")
"""A link or image whose target is a path; addresses have a colon."""
CODE = re.compile(r"`[^`]+`")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".cff": "yaml", ".sh": "bash"}


def build_pages(root: Path) -> dict[str, str]:
    """Returns the Markdown of each page of the site, by its path in docs/, for the repository at `root`."""
    sources = {name: (root / name).read_text(encoding="utf-8") for name in FRONT}
    for path in sorted((root / "docs").glob("*.md")):
        sources[f"docs/{path.name}"] = path.read_text(encoding="utf-8")
    for path in sorted((root / "docs").glob("*.ipynb")):
        sources[f"docs/{path.name}"] = notebook_text(path)
    pages, files = {}, set[str]()
    for name, text in sources.items():
        pages[site_path(name)] = _with_pipes(relinked(text, name, root))
        files |= {path for path in linked_files(text, name, root) if site_path(path).startswith("source/")}
    return pages | {site_path(path): source_text(root, path) for path in sorted(files)}


def site_path(path: str) -> str:
    """Returns where a file of the repository is on the site, as a path in docs/."""
    if path in FRONT:
        return FRONT[path]
    if not path.startswith("docs/"):
        return f"source/{path}.md"
    inside = path.removeprefix("docs/")
    return f"{inside.removesuffix('.ipynb')}.md" if inside.endswith(".ipynb") else inside


def relinked(text: str, name: str, root: Path) -> str:
    """Returns the Markdown of the file `name` with each link to a file of the repository pointing to its page."""
    here = posixpath.dirname(site_path(name))

    def again(match: re.Match[str]) -> str:
        target = _resolved(match["path"], name)
        if not (root / target).is_file():
            return match[0]  # The build names it.
        path = posixpath.relpath(site_path(target), here or ".")
        return f"{match['before']}{path}{match['after'] or ''}{match['end']}"

    return LINK.sub(again, text)


def linked_files(text: str, name: str, root: Path) -> set[str]:
    """Returns the files of the repository to which the Markdown of the file `name` links."""
    targets = {_resolved(match["path"], name) for match in LINK.finditer(text)}
    return {target for target in targets if (root / target).is_file()}


def notebook_text(path: Path) -> str:
    """Returns a notebook as Markdown: its texts, its code, and a link to the file. Notebooks here keep no outputs."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = []
    for cell in cells:
        source = "".join(cell["source"])
        texts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
    title, _, rest = texts[0].partition("\n")
    texts[0] = f"{title}\n\n*This page is a notebook: `docs/{path.name}`.*\n{rest}"
    return "\n\n".join(texts) + "\n"


def source_text(root: Path, path: str) -> str:
    """Returns a page that shows a file of the repository."""
    text = (root / path).read_text(encoding="utf-8")
    return f"# {path}\n\n`````{LANGUAGES.get(Path(path).suffix, 'text')}\n{text.rstrip()}\n`````\n"


def _resolved(path: str, name: str) -> str:
    """The target of a link in the file `name`, as a path from the repository's root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), path))


def _with_pipes(text: str) -> str:
    r"""Returns Markdown with `a|b` for `a\|b` in the code of tables, which Python-Markdown shows as it stands."""
    lines = text.split("\n")
    return "\n".join(
        CODE.sub(lambda code: code[0].replace("\\|", "|"), line) if line.startswith("|") else line for line in lines
    )
