"""Where a store's bytes lie: a directory or an object-store URL, behind one small surface.

Everything is a whole file put in one step: on a directory under a temporary name, flushed to disk
and renamed (or linked) into place; on an object store by one PUT, which is atomic there. So a
reader, or a process started after a kill, sees a file whole or not at all.

A store that is gone (removed, renamed, unmounted) is not made again by halves: nothing is put where
its marker, the file that `establish` put there first, is not. What the system refuses is one
sentence, a StoreAccessError.
"""

import errno
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from pyarrow import NativeFile, fs

from data.access import reaching, refusal
from data.address import opened, shown
from data.errors import StoreError, StoreUnavailableError

MARKER = "store.json"
_ATTEMPTS = 5
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EOPNOTSUPP}
_TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{8}\.tmp")
_WITHOUT_FOLDERS = ("s3", "gcs", "abfs")
_TRUSTED = 10.0  # seconds for which an object store counts as there after it was seen


@dataclass(frozen=True)
class Listed:
    """A file as a listing shows it: its path, when it changed (ns; None: not told), its bytes.

    `tag` is what an object store names its content by (None: not told): mostly its MD5 (hex).
    """

    path: str
    mtime_ns: int | None
    size: int
    tag: str | None = None


@dataclass(frozen=True)
class Location:
    """A root directory in a file system; all paths given to it are relative and use `/`.

    `name` is for people: a URL's secrets are not in it. `address` is what `parse` was given.
    """

    filesystem: fs.FileSystem
    root: str
    name: str
    address: str = field(repr=False)
    _seen: list[float] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def parse(cls, location: str | Path) -> "Location":
        """A path or a URL (`s3://bucket/folder`, `file:///folder`, …); StoreError if neither."""
        address = os.fspath(location)
        if not address.strip():
            raise StoreError("The place of the store is empty: name a directory or a URL.")
        if "\0" in address:
            raise StoreError(
                f"{address!r} cannot be the place of a store: it holds a NUL character."
            )
        if "://" not in address:
            root = str(Path(address).expanduser().absolute())
            return cls(fs.LocalFileSystem(), root, address, address)
        filesystem, root = opened(address)
        return cls(filesystem, root.rstrip("/"), shown(address), address)

    @property
    def is_local(self) -> bool:
        """Whether files here are files of this machine (or of a directory mounted on it)."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def path(self, relative: str) -> str:
        """The path in the file system."""
        return f"{self.root}/{relative}"

    def info(self, *relative: str) -> Sequence[fs.FileInfo]:
        """Type, size and time of files that may be missing."""
        with reaching(relative[0], "read from", self.name):
            return self.filesystem.get_file_info([self.path(one) for one in relative])

    def exists(self, relative: str) -> bool:
        """Whether there is such a file."""
        try:
            with reaching(relative, "read from", self.name):
                if self.is_local:
                    os.stat(self.path(relative))
                else:
                    self.filesystem.open_input_file(self.path(relative)).close()  # one request
        except FileNotFoundError:
            return False
        return True

    def read(self, relative: str) -> bytes | None:
        """A file's bytes; None if there is no such file."""
        found = self._read(relative, look=False)
        return found[0] if found is not None else None

    def fetch(self, relative: str) -> tuple[bytes, Listed | None] | None:
        """A file's bytes, and how it looked before they were read; None if there is none."""
        return self._read(relative, look=True)

    def look(self, relative: str) -> Listed | None:
        """A file as it is now; None if there is no such file. One request of an object store."""
        try:
            with (
                reaching(relative, "read from", self.name),
                self.filesystem.open_input_file(self.path(relative)) as stream,
            ):
                return self._told(relative, stream)
        except FileNotFoundError:
            return None

    def _read(self, relative: str, look: bool) -> tuple[bytes, Listed | None] | None:
        """A file's bytes and, if `look`, how it looked before."""
        for attempt in range(_ATTEMPTS):
            try:
                with (
                    reaching(relative, "read from", self.name),
                    self._opened(relative) as stream,
                ):
                    file = self._told(relative, stream) if look else None
                    return stream.readall(), file
            except FileNotFoundError:
                return None
            except StoreUnavailableError as error:
                # S3 is asked for the size first: an object removed or replaced then is no fault
                if "GetObject" not in str(error.__cause__) or attempt + 1 == _ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def _opened(self, relative: str) -> NativeFile | FileIO:
        """A file, open to be read; of a directory by the system, which says why it refuses."""
        path = self.path(relative)
        if self.is_local:
            return open(path, "rb", buffering=0)
        return self.filesystem.open_input_file(path)

    def _told(self, relative: str, stream: NativeFile) -> Listed | None:
        """What is known of an open file: what the store told on opening it, or tells now."""
        if self.filesystem.type_name == "s3":
            told = {name: value.decode() for name, value in stream.metadata().items()}
            with suppress(KeyError, ValueError):
                changed = datetime.fromisoformat(told["Last-Modified"]).replace(tzinfo=UTC)
                nanoseconds = int(changed.timestamp()) * 10**9
                return Listed(relative, nanoseconds, stream.size(), told["ETag"].strip('"'))
        (info,) = self.filesystem.get_file_info([self.path(relative)])
        if info.type != fs.FileType.File:
            return None
        return Listed(relative, info.mtime_ns, info.size)

    def listing(self, folder: str, recursive: bool = False) -> list[Listed]:
        """The files in a folder, or anywhere below it, sorted by path; hidden ones are left out.

        So is what lies beyond symbolic links below it: that is not the store's.
        """
        selector = fs.FileSelector(self.path(folder), recursive=recursive, allow_not_found=True)
        with reaching(f"{folder}/", "read from", self.name):
            found = self._selected(selector)
        prefix = len(self.root) + 1
        links = tuple(
            f"{one.path}/"
            for one in found
            if self.is_local and one.type == fs.FileType.Directory and os.path.islink(one.path)
        )
        files = (
            Listed(one.path[prefix:], one.mtime_ns, one.size)
            for one in found
            if one.type == fs.FileType.File
            and not one.base_name.startswith(".")
            and not one.path.startswith(links)
        )
        return sorted(files, key=lambda one: one.path)

    def files(self, folder: str) -> list[str]:
        """The files anywhere below a folder, sorted; temporary ones and others' are left out."""
        return [one.path for one in self.listing(folder, recursive=True)]

    def entries(self, folder: str = "") -> list[str]:
        """The names directly in a folder, or in the root, sorted; hidden ones are left out."""
        selector = fs.FileSelector(self.path(folder) if folder else self.root, allow_not_found=True)
        with reaching(f"{folder}/" if folder else "its folder", "read from", self.name):
            found = self._selected(selector)
        return sorted(one.base_name for one in found if not one.base_name.startswith("."))

    def _selected(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        """What a selector finds, also where a folder is made, or goes, while it is listed."""
        for _ in range(_ATTEMPTS - 1):
            with suppress(FileNotFoundError):
                return self.filesystem.get_file_info(selector)
        return self.filesystem.get_file_info(selector)

    def leftovers(self, older_than: float) -> list[str]:
        """Temporary files that a killed process left, last changed over `older_than` seconds ago.

        On object stores there are none.
        """
        if not self.is_local:
            return []
        found, latest = [], time.time() - older_than
        for folder, _, names in os.walk(self.root):
            for name in names:
                if not _TEMPORARY.fullmatch(name):
                    continue
                path = os.path.join(folder, name)
                try:
                    changed = os.stat(path, follow_symlinks=False).st_mtime
                except FileNotFoundError:
                    continue  # its writer has just renamed it
                if changed < latest:
                    found.append(os.path.relpath(path, self.root).replace(os.sep, "/"))
        return sorted(found)

    def require(self) -> None:
        """StoreUnavailableError if the store is gone: then nothing may be written."""
        if not self.is_local and self._seen and time.monotonic() - self._seen[0] < _TRUSTED:
            return  # nobody unmounts it
        began = time.monotonic()
        if not self.exists(MARKER):
            raise StoreUnavailableError(
                f"The store {self.name!r} is gone ({MARKER} is not there any more), and nothing was"
                " written: bring it back where it was (mount it, move it), then run again.",
                "it is gone",
                "bring it back where it was (mount it, move it), then run again",
            )
        self._seen[:] = [began]

    def establish(self, content: bytes) -> None:
        """Make the folder, and put the store's marker there."""
        try:
            with reaching(MARKER, "written to", self.name):
                if self.is_local:
                    os.makedirs(self.root, exist_ok=True)
                self._put(MARKER, content, durable=True)
        except FileNotFoundError as error:
            raise refusal(
                error, f"{MARKER} cannot be written to the store {self.name!r}"
            ) from error

    def put(self, relative: str, content: bytes) -> None:
        """Write a file in one step, in place of one that is there."""
        self.require()
        with self._writing(relative):
            self._put(relative, content, durable=True)

    def put_lightly(self, relative: str, content: bytes) -> None:
        """The same, not flushed to disk: for what means nothing once this machine has failed."""
        self.require()
        with self._writing(relative):
            self._put(relative, content, durable=False)

    def put_new(self, relative: str, content: bytes) -> bool:
        """Write a file in one step unless there is one; whether this call wrote it.

        On file systems without hard links and on object stores the last of several simultaneous
        writers wins instead of the first.
        """
        self.require()
        if not self.is_local:
            if self.exists(relative):
                return False
            with self._writing(relative):
                self._put(relative, content, durable=True)
            return True
        with self._writing(relative):
            return self._link(relative, content)

    def touch(self, relative: str) -> bool:
        """Change the time of a file of a directory; False if it is gone."""
        try:
            with reaching(relative, "written to", self.name):
                os.utime(self.path(relative))
        except FileNotFoundError:
            return False
        return True

    def remove(self, relative: str) -> None:
        """Delete a file; nothing happens if there is none, or if it lies beyond a symbolic link."""
        folders = relative.split("/")[:-1]
        below = ["/".join(folders[: i + 1]) for i in range(1, len(folders))]
        if self.is_local and any(os.path.islink(self.path(one)) for one in below):
            return
        try:
            with reaching(relative, "removed from", self.name):
                self.filesystem.delete_file(self.path(relative))
        except FileNotFoundError:
            return

    @contextmanager
    def _writing(self, relative: str) -> Iterator[None]:
        """Say what cannot be written, and that the store is gone where it went meanwhile."""
        try:
            with reaching(relative, "written to", self.name):
                yield
        except FileNotFoundError as error:
            self.require()
            raise StoreUnavailableError(
                f"{relative} cannot be written to the store {self.name!r}: its folder was removed"
                " meanwhile; run again.",
                "its folder was removed meanwhile",
                "run again",
            ) from error

    def _put(self, relative: str, content: bytes, durable: bool) -> None:
        """Write a file in one step; OSError where that is refused."""
        path = self.path(relative)
        if not self.is_local:
            if self.filesystem.type_name not in _WITHOUT_FOLDERS:
                self.filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
            with self.filesystem.open_output_stream(path) as stream:
                stream.write(content)
            return
        temporary = self._temporary(relative, content, durable)
        try:
            os.replace(temporary, path)
        except BaseException:
            _unlink(temporary)
            raise
        if durable:
            _flush_folder(path)

    def _link(self, relative: str, content: bytes) -> bool:
        """Write a file in a directory in one step unless there is one; whether this wrote it."""
        temporary, target = self._temporary(relative, content, durable=True), self.path(relative)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if os.path.exists(target):
                return False
            os.replace(temporary, target)
        finally:
            _unlink(temporary)
        _flush_folder(target)
        return True

    def _temporary(self, relative: str, content: bytes, durable: bool) -> str:
        """A temporary file beside the target, its content on the disk if `durable`."""
        *folders, name = relative.split("/")
        folder = self.root
        for one in folders:  # below the root alone, which is never made again
            folder = f"{folder}/{one}"
            if not os.path.isdir(folder):
                with suppress(FileExistsError):
                    os.mkdir(folder)
        temporary = f"{folder}/.{name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
        try:
            with open(temporary, "xb") as stream:
                stream.write(content)
                stream.flush()
                if durable:
                    os.fsync(stream.fileno())
        except BaseException:
            _unlink(temporary)
            raise
        return temporary


def _unlink(path: str) -> None:
    """Remove a temporary file that may be gone already."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def _flush_folder(path: str) -> None:
    """Flush a file's directory entry to disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
