"""Hooks of MkDocs: the pages are those of `site_pages`, and the files of docs/ only what they show."""

from pathlib import Path

import site_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parents[2]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Puts each page in the place of the file that it is made from. Pages of sources are in no menu."""
    for path, text in site_pages.build_pages(ROOT).items():
        if existing := files.get_file_from_path(path):
            files.remove(existing)
        level = InclusionLevel.NOT_IN_NAV if path.startswith("source/") else InclusionLevel.INCLUDED
        files.append(File.generated(config, path, content=text, inclusion=level))
    return files
