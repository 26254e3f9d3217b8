"""Where a store's bytes lie: a directory or an object-store URL, behind one small surface.

Everything is a whole file put in one step: on a directory under a temporary name, flushed to disk
and renamed (or linked) into place; on an object store by one PUT, which is atomic there. So a
reader, or a process started after a kill, sees a file whole or not at all.
"""

import errno
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from data.errors import StoreError

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EOPNOTSUPP}


@dataclass(frozen=True)
class Location:
    """A root directory in a file system; all paths given to it are relative and use `/`."""

    filesystem: fs.FileSystem
    root: str
    name: str

    @classmethod
    def parse(cls, location: str | Path) -> "Location":
        """A path or a URL (`s3://bucket/folder`, `file:///folder`, …); StoreError if neither."""
        name = os.fspath(location)
        if "://" not in name:
            return cls(fs.LocalFileSystem(), str(Path(name).expanduser().absolute()), name)
        try:
            filesystem, root = fs.FileSystem.from_uri(name)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, ImportError) as error:
            raise StoreError(f"The store location {name!r} cannot be used: {error}.") from error
        return cls(filesystem, root.rstrip("/"), name)

    @property
    def is_local(self) -> bool:
        """Whether files here are files of this machine (or of a directory mounted on it)."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def path(self, relative: str) -> str:
        """The path in the file system."""
        return f"{self.root}/{relative}"

    def info(self, *relative: str) -> Sequence[fs.FileInfo]:
        """Type, size and time of files that may be missing."""
        return self.filesystem.get_file_info([self.path(one) for one in relative])

    def read(self, relative: str) -> bytes | None:
        """A file's bytes; None if there is no such file."""
        try:
            with self.filesystem.open_input_file(self.path(relative)) as stream:
                return stream.readall()
        except FileNotFoundError:
            return None

    def files(self, folder: str) -> list[str]:
        """The files anywhere below a folder, sorted; temporary ones and others' are left out."""
        selector = fs.FileSelector(self.path(folder), recursive=True, allow_not_found=True)
        found = self.filesystem.get_file_info(selector)
        prefix = len(self.root) + 1
        names = (info.path[prefix:] for info in found if info.type == fs.FileType.File)
        return sorted(one for one in names if not one.rsplit("/", 1)[-1].startswith("."))

    def entries(self) -> list[str]:
        """Names directly in the root, hidden ones left out."""
        selector = fs.FileSelector(self.root, allow_not_found=True)
        names = (info.base_name for info in self.filesystem.get_file_info(selector))
        return sorted(name for name in names if not name.startswith("."))

    def put(self, relative: str, content: bytes) -> None:
        """Write a file in one step, in place of one that is there."""
        if not self.is_local:
            self._put_object(relative, content)
            return
        temporary = self._flushed(relative, content)
        try:
            os.replace(temporary, self.path(relative))
        except OSError:
            os.unlink(temporary)
            raise
        _flush_folder(self.path(relative))

    def put_new(self, relative: str, content: bytes) -> bool:
        """Write a file in one step unless there is one; whether this call wrote it.

        On file systems without hard links and on object stores the last of several simultaneous
        writers wins instead of the first.
        """
        if not self.is_local:
            if self.info(relative)[0].type != fs.FileType.NotFound:
                return False
            self._put_object(relative, content)
            return True
        temporary = self._flushed(relative, content)
        target = self.path(relative)
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
            if os.path.exists(temporary):
                os.unlink(temporary)
        _flush_folder(target)
        return True

    def remove(self, relative: str) -> None:
        """Delete a file; nothing happens if there is none."""
        try:
            self.filesystem.delete_file(self.path(relative))
        except FileNotFoundError:
            return

    def _flushed(self, relative: str, content: bytes) -> str:
        """A temporary file beside the target, its content on the disk."""
        folder, name = os.path.split(self.path(relative))
        os.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.{name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
        try:
            with open(temporary, "xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
        return temporary

    def _put_object(self, relative: str, content: bytes) -> None:
        """One PUT; the folder is made where the file system has folders."""
        path = self.path(relative)
        self.filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
        with self.filesystem.open_output_stream(path) as stream:
            stream.write(content)


def _flush_folder(path: str) -> None:
    """Flush a file's directory entry to disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
