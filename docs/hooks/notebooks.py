"""Notebooks as pages of the site: each NAME.ipynb in docs/ becomes the page NAME.md, as it was last executed."""

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace notebooks by pages, and put the pictures in them beside the pages."""
    for file in [item for item in files if item.src_uri.endswith(".ipynb")]:
        name = file.src_uri.removesuffix(".ipynb")
        notebook = nbformat.reads(file.content_string, as_version=4)
        text, resources = MarkdownExporter().from_notebook_node(notebook, {"output_files_dir": f"{name}-files"})
        files.remove(file)
        files.append(File.generated(config, f"{name}.md", content=text))
        for path, content in resources["outputs"].items():
            files.append(File.generated(config, path, content=content))
    return files
