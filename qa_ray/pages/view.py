"""A finished page, as it is handed to whoever wants to look at it."""

import html
from dataclasses import dataclass

from qa_ray.errors import StorageError
from qa_ray.storage.run_folder import RunFolder

_HEIGHT = 700


@dataclass(frozen=True, slots=True)
class Report:
    """A page that needs no network; a notebook shows it where it stands."""

    location: str
    """Path or URI of the file."""

    def __str__(self) -> str:
        return self.location

    def read(self) -> str:
        """The page's HTML.

        Raises:
            StorageError: the file is gone.
        """
        folder, _, name = self.location.partition("?")[0].rpartition("/")
        query = "".join(self.location.partition("?")[1:])
        content = RunFolder.at(f"{folder}{query}").read(name)
        if content is None:
            raise StorageError(f"the report {self.location} is not there any more")
        return content.decode()

    def _repr_html_(self) -> str:
        # In a frame, so that its styles and scripts stay its own.
        page = html.escape(self.read(), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:{_HEIGHT}px;border:0"></iframe>'
