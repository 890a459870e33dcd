"""What `mkdocs build` does besides: it adds two pages from the root, and refuses pages that load things from elsewhere.

Pages link to files of the repository, such as ../conf/search/recipe.yaml. The site has no such files, so that it shows
their paths instead.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
FROM_ROOT = ("CONTRIBUTING.md", "CHANGELOG.md")
LOADED = re.compile(r"""(?:\bsrc=|<link [^>]*href=|@import |url\()["']?(?:https?:)?//[^"')\s>]+""")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie beside README.md."""
    for name in FROM_ROOT:
        files.append(File.generated(config, name, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links fit the site."""
    if page.file.src_uri in FROM_ROOT:
        return markdown.replace("](docs/", "](")
    return re.sub(
        r"\[[^]]+\]\(\.\./([^)]+)\)",
        lambda link: f"[{link[1]}]({link[1]})" if link[1] in FROM_ROOT else f"`{link[1]}`",
        markdown,
    )


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site whose pages or styles load scripts, styles, fonts or images from another server."""
    site = Path(config.site_dir)
    for file in [*site.rglob("*.html"), *site.rglob("*.css")]:
        if found := LOADED.search(file.read_text(encoding="utf-8")):
            raise PluginError(f"{file} loads something from another server: {found[0]}")
