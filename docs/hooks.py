"""What `mkdocs build` does besides: it adds two pages from the root and one for each notebook, with its outputs, and
refuses pages that load things from elsewhere.

Pages link to files of the repository, such as ../conf/search/recipe.yaml. The site has no such files, so that it shows
their paths instead.
"""

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        name = f"notebooks/{path.stem}"
        text, pictures = page_of_notebook(json.loads(path.read_text(encoding="utf-8")), path.stem)
        files.append(File.generated(config, f"{name}.md", content=text))
        for picture, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{picture}", content=content))
    return files


def page_of_notebook(notebook: Mapping[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown, with its outputs, and its pictures by the names of their files."""
    blocks: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        blocks.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                text = "".join(output["text"]).rstrip()
                blocks.append(f"```{{ .text .output }}\n{text}\n```")
            elif "image/png" in output.get("data", {}):
                picture = f"{name}_{len(pictures) + 1}.png"
                pictures[picture] = base64.b64decode("".join(output["data"]["image/png"]))
                blocks.append(f"![the picture that the code above draws]({picture})")
    return "\n\n".join(blocks) + "\n", pictures


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links fit the site."""
    if page.file.src_uri in FROM_ROOT:
        return markdown.replace("](docs/", "](")
    markdown = re.sub(r"(\]\([\w./]+)\.ipynb\)", r"\1.md)", markdown)
    if "/" in page.file.src_uri:  # a link to ../ is to a page
        return markdown
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
