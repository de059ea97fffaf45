"""Prepare a checkout for a release: absolute links in README.md, and links of the project.

    python .github/package_page.py https://github.com/OWNER/NAME v0.1.0

The package page shows README.md without the files beside it. The workflow of releases knows the
address of the repository; the files in the repository do not, and stay as they are.
"""

import re
import sys
from pathlib import Path


def absolute_links(text: str, address: str, ref: str) -> str:
    """Return a Markdown text whose links and pictures name files of the repository in full."""
    text = re.sub(r"(!\[[^\]]*\]\()(?![a-z]+:|#)", rf"\g<1>{address}/raw/{ref}/", text)
    return re.sub(r"((?<!!)\[[^\]]*\]\()(?![a-z]+:|#)", rf"\g<1>{address}/blob/{ref}/", text)


def project_links(address: str) -> str:
    """Return the table of pyproject.toml with the links of the project."""
    owner, name = address.rstrip("/").split("/")[-2:]
    return (
        f'\n[project.urls]\nDocumentation = "https://{owner.lower()}.github.io/{name}/"\n'
        f'Source = "{address}"\nIssues = "{address}/issues"\n'
        f'Changelog = "{address}/blob/main/CHANGELOG.md"\n'
    )


def main(root: Path, address: str, ref: str) -> None:
    """Rewrite README.md and pyproject.toml below a directory."""
    readme, project = root / "README.md", root / "pyproject.toml"
    readme.write_text(absolute_links(readme.read_text(), address, ref))
    project.write_text(project.read_text() + project_links(address))


if __name__ == "__main__":
    main(Path.cwd(), *sys.argv[1:])
